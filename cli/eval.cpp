// cohort eval: how many held-out problems of a task a model solves; perplexity and multiple choice
// are in eval_likelihood.cpp.
#include <cstdio>
#include <fstream>
#include <memory>

#include "cli/commands.h"
#include "cli/eval_likelihood.h"
#include "cli/loaded_model.h"
#include "core/base/error.h"
#include "core/base/log.h"
#include "core/config/parse.h"
#include "core/config/values.h"
#include "core/io/file.h"
#include "distributed/launch.h"
#include "rl/components.h"
#include "rl/evaluate.h"

namespace cohort::cli {
namespace {

using nlohmann::ordered_json;

struct Arguments {
  ModelOptions model;
  LikelihoodOptions likelihood;
  std::string config, task, rewards, correct, save, out;
  std::vector<std::string> overrides;
  int64_t problems = 500, samples = 8;
  uint64_t seed = 1;
  /// Settings that stand for keys of the config; empty where not given.
  std::string temperature, top_p, top_k, min_p, max_new_tokens;
  std::vector<std::string> stop;
  bool json = false;
};

/// The options as overrides of the config, so that its parser checks them.
std::vector<std::string> as_overrides(const Arguments& arguments) {
  std::vector<std::string> all{
      "run.model=" + core::string_text(arguments.model.path),
      "mesh={dp: auto, ep: 1, pp: 1}",  // of the run that the config is of; ours is --ep
  };
  const auto add = [&all](const char* key, const std::string& value) {
    if (!value.empty()) all.push_back(std::string(key) + "=" + value);
  };
  add("rl.task", arguments.task);
  const std::string& rewards = arguments.rewards;
  add("rl.rewards",
      rewards.empty() || rewards[0] == '[' || rewards[0] == '{' ? rewards : "[" + rewards + "]");
  const LikelihoodOptions& likelihood = arguments.likelihood;
  if (likelihood.few_shot > 0) add("rl.task.few_shot", std::to_string(likelihood.few_shot));
  if (!likelihood.few_shot_file.empty())
    add("rl.task.few_shot_file", core::string_text(likelihood.few_shot_file));
  add("rl.sampling.temperature", arguments.temperature);
  add("rl.sampling.top_p", arguments.top_p);
  add("rl.sampling.top_k", arguments.top_k);
  add("rl.sampling.min_p", arguments.min_p);
  add("rl.sampling.max_new_tokens", arguments.max_new_tokens);
  std::vector<std::string> stops;
  for (const std::string& text : arguments.stop) stops.push_back(core::string_text(text));
  if (!stops.empty()) add("rl.sampling.stop", fmt::format("[{}]", fmt::join(stops, ", ")));
  // Last, so that they may refine what the options say: --task countdown rl.task.count=4.
  all.insert(all.end(), arguments.overrides.begin(), arguments.overrides.end());
  return all;
}

core::Config read_config(const Arguments& arguments) {
  const auto overrides = as_overrides(arguments);
  core::Config config = arguments.config.empty()
                            ? core::parse_config_text("run: {}", "defaults", overrides)
                            : core::parse_config(arguments.config, overrides);
  COHORT_CHECK_INPUT(!config.rl.task.name.empty(),
                     "no task is given: name one with --task countdown, or a config that has "
                     "rl.task with --config FILE");
  if (!config.rl.rewards.empty()) return config;
  // jsonl and arithmetic have an answer that is a number or a formula.
  core::NamedOptions reward;
  reward.name = config.rl.task.name == "countdown" ? "countdown" : "math_answer";
  config.rl.rewards.push_back(std::move(reward));
  return config;
}

/// The file of an option, opened on rank 0 before anything is computed.
std::ofstream open_save(const std::string& path,
                        const distributed::Mesh& mesh,
                        const char* option = "--save") {
  std::ofstream file;
  if (path.empty() || mesh.shape.rank != 0) return file;
  file.open(path, std::ios::binary | std::ios::trunc);
  COHORT_CHECK_INPUT(file.good(), "{}: cannot be written; want a file for {}", path, option);
  return file;
}

/// The completions of all ranks, in the order of the problems. Collective.
void save(std::ofstream& file,
          const std::string& path,
          const rl::Evaluation& evaluation,
          const std::vector<rl::Problem>& problems,
          const std::vector<std::string>& labels,
          const distributed::Mesh& mesh) {
  std::vector<std::vector<std::string>> of_problem(problems.size());
  std::string mine;
  const auto replace = ordered_json::error_handler_t::replace;
  for (const auto& one : evaluation.completions)
    mine +=
        rl::completion_json(one, problems[one.problem_idx], labels).dump(-1, ' ', false, replace) +
        "\n";
  const auto texts = mesh.dp->all_gather_text(mine);
  if (mesh.shape.rank != 0) return;
  for (size_t rank = 0; rank < texts.size(); ++rank) {
    size_t line = 0, begin = 0;
    for (size_t end; (end = texts[rank].find('\n', begin)) != std::string::npos; begin = end + 1)
      of_problem[rank + line++ / evaluation.samples * texts.size()].push_back(
          texts[rank].substr(begin, end + 1 - begin));
  }
  for (const auto& lines : of_problem)
    for (const std::string& line : lines) file << line;
  file.flush();
  COHORT_CHECK(file.good(), "{}: could not be written to its end", path);
}

void print_text(const ordered_json& result) {
  const auto number = [](const ordered_json& value) { return value.get<double>(); };
  fmt::print("task {}: {} held-out problems, {} samples of each\n",
             result["task"].get<std::string>(),
             result["problems"].get<int64_t>(),
             result["samples"].get<int64_t>());
  fmt::print("pass@1   {:.4f}   95 % interval {:.4f} to {:.4f}\n",
             number(result["pass_at_1"]),
             number(result["pass_at_1_ci95"][0]),
             number(result["pass_at_1_ci95"][1]));
  for (const auto& [k, value] : result["pass_at_k"].items())
    if (k != "1") fmt::print("pass@{:<3} {:.4f}\n", k, number(value));
  fmt::print("maj@{:<4} {:.4f}\n", result["samples"].get<int64_t>(), number(result["maj_at_k"]));
  for (const auto& [name, category] : result["categories"].items())
    fmt::print("  {:<20} {:.4f}   of {} problems\n",
               name,
               number(category["pass_at_1"]),
               category["problems"].get<int64_t>());
  for (const auto& [label, value] : result["rewards"].items())
    fmt::print("reward {:<16} {:.4f}\n", label, number(value));
  fmt::print("completions of {:.1f} tokens, {:.1f} % truncated; {:.0f} tokens/s\n",
             number(result["completion_tokens_mean"]),
             100 * number(result["truncated_fraction"]),
             number(result["generate_tokens_per_second"]));
  if (result.contains("quantize"))
    fmt::print("{} weights in groups of {}: {} bytes of {}\n",
               result["quantize"].get<std::string>(),
               result["quantize_group"].get<int64_t>(),
               result["weight_bytes"].get<int64_t>(),
               result["weight_bytes_unquantized"].get<int64_t>());
  if (const auto failures = result["reward_failures"].get<int64_t>(); failures > 0)
    fmt::print("{} completions could not be scored: a reward failed\n", failures);
}

int run(const Arguments& arguments) {
  core::setup_logging(distributed::world_rank(), distributed::world_size());
  if (is_likelihood_task(arguments.task))
    return evaluate_likelihood(
        arguments.task, arguments.model, arguments.likelihood, arguments.save, arguments.json);
  refuse_likelihood_options(arguments.likelihood, arguments.task);
  LoadedModel loaded(arguments.model);
  const core::Config config = read_config(arguments);
  const core::RlConfig& rl = config.rl;
  const auto task = rl::make_task(rl::task_config(rl.task, config.run.seed));
  const auto problems = rl::distinct_problems(*task, rl::Split::kTest, arguments.problems);
  const auto reward_list = rl::reward_configs(rl.rewards);
  rl::RewardSum rewards(reward_list);
  std::ofstream file = open_save(arguments.save, loaded.mesh);
  if (!arguments.out.empty()) open_save(arguments.out, loaded.mesh, "--out");

  rl::Generator generator(
      loaded.model, &loaded.tokenizer, loaded.mesh.ep, {rl.max_running, rl.cache_tokens, false});
  rl::EvaluationOptions options;
  options.samples = arguments.samples;
  options.seed = arguments.seed;
  options.bos_token_id = loaded.folder.config.bos_token_id;
  options.correct = arguments.correct;
  const rl::Evaluation evaluation = rl::evaluate(
      options, problems, loaded.tokenizer, rewards, *loaded.mesh.dp, [&](const auto& requests) {
        return generator.generate(requests, rl.sampling);
      });
  if (!arguments.save.empty())
    save(file, arguments.save, evaluation, problems, rewards.labels(), loaded.mesh);

  at::Tensor seconds = at::full({1}, generator.counters().seconds, at::kDouble);
  loaded.mesh.dp->all_reduce(seconds, distributed::ReduceOp::kMax);
  ordered_json result{{"task", task->name()}, {"model", loaded.folder.path}};
  result.update(rl::evaluation_json(evaluation));
  result["correct"] = options.correct.empty() ? rewards.labels()[0] : options.correct;
  result["seed"] = arguments.seed;
  result["temperature"] = rl.sampling.temperature;
  result["max_new_tokens"] = rl.sampling.max_new_tokens;
  result["generate_seconds"] = seconds.item<double>();
  result["generate_tokens_per_second"] =
      evaluation.tokens_mean * static_cast<double>(evaluation.problems * evaluation.samples) /
      std::max(seconds.item<double>(), 1e-9);
  add_quantization(arguments.model, loaded.quantization, result);
  if (loaded.mesh.shape.rank != 0) return 0;
  add_parameters(loaded.folder, result);
  if (!arguments.out.empty()) core::write_file(arguments.out, result.dump() + "\n");
  if (arguments.json)
    fmt::print("{}\n", result.dump());
  else
    print_text(result);
  return 0;
}

}  // namespace

Run add_eval(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  arguments->model.add_to(app);
  app.add_option("--config", arguments->config, "YAML file whose rl section is taken");
  app.add_option("--task",
                 arguments->task,
                 "arithmetic, countdown or jsonl, or with options: '{name: countdown, count: 3}'; "
                 "or perplexity or multiple_choice of --data");
  arguments->likelihood.add_to(app);
  app.add_option("--rewards",
                 arguments->rewards,
                 "Names with commas between, or YAML; default: countdown for that task, else "
                 "math_answer");
  app.add_option("--correct",
                 arguments->correct,
                 "Label of the reward that decides: right is a value of at least 1; default: the "
                 "first");
  app.add_option("--problems", arguments->problems, "The first so many distinct held-out problems")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--samples", arguments->samples, "Completions of each problem")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option(
      "--temperature", arguments->temperature, "Of sampling [1]; 0: the likeliest token");
  app.add_option("--top-p", arguments->top_p, "Sample among the fewest that hold this probability");
  app.add_option("--top-k", arguments->top_k, "Sample among the k likeliest; 0: all");
  app.add_option("--min-p",
                 arguments->min_p,
                 "Leave out what is less likely than this times the "
                 "likeliest");
  app.add_option("--max-new-tokens", arguments->max_new_tokens, "Longest completion [64]");
  app.add_option("--stop", arguments->stop, "Text that ends a completion; may be repeated")
      ->allow_extra_args(false);
  app.add_option("--seed", arguments->seed, "Of the samples; the problems come from run.seed")
      ->capture_default_str();
  app.add_option("--save", arguments->save, "JSONL file that gets every completion and its scores");
  app.add_option("--out", arguments->out, "File that gets the JSON object, whatever is printed");
  app.add_flag("--json", arguments->json, "One JSON object instead of text");
  app.add_option("overrides",
                 arguments->overrides,
                 "Settings of the rl section, which win over the options: rl.task.count=4");
  return [arguments] { return run(*arguments); };
}

}  // namespace cohort::cli
