#include "rl/sample.h"

#include <algorithm>
#include <cmath>

#include "core/base/error.h"
#include "core/base/log.h"
#include "core/base/rng.h"
#include "core/io/xxh3.h"
#include "distributed/mesh.h"
#include "moe/training_run.h"
#include "rl/components.h"
#include "rl/generator.h"
#include "rl/model_folder.h"
#include "rl/rollout.h"
#include "rl/sample_choice.h"
#include "rl/sample_counts.h"
#include "rl/sample_parts.h"
#include "rl/teacher.h"

namespace cohort::rl {
namespace {

using nlohmann::ordered_json;

std::string text_of(const ordered_json& json) {
  return json.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

std::string hash_of(const ordered_json& json) {
  const std::string text = text_of(json);
  return core::xxh3_hex(text.data(), text.size());
}

void check(const core::Config& config) {
  COHORT_CHECK_INPUT(!config.sample.out.empty(),
                     "sample.out is not given: name the file that gets the examples, as in "
                     "sample.out=samples.jsonl");
  COHORT_CHECK_INPUT(!config.run.model.empty(),
                     "run.model is not given: completions are drawn by a trained model; name its "
                     "folder with --model DIR");
}

ModelFolder open_model(const core::Config& config, const distributed::Mesh& mesh) {
  check(config);
  ModelFolder folder = open_model_folder(config.run.model, mesh);
  folder.config.num_nextn_predict_layers = 0;  // generation has no use for them
  return folder;
}

/// All weights are read: none needs to be drawn first.
core::ModelConfig undrawn(core::ModelConfig config) {
  config.initializer_range = 0;
  return config;
}

std::vector<Problem> problems_of(const core::SampleConfig& sample, const Task& task) {
  const Split split = sample.split == "test" ? Split::kTest : Split::kTrain;
  if (sample.prompts > 0) return distinct_problems(task, split, sample.prompts);
  const auto size = task.size(split);
  COHORT_CHECK_INPUT(size,
                     "sample.prompts is null: task {} makes up its problems without end; want how "
                     "many",
                     task.name());
  return distinct_problems(task, split, *size);
}

void check_lengths(const std::vector<Problem>& problems,
                   const core::Tokenizer& tokenizer,
                   const core::ModelConfig& model,
                   int64_t max_new_tokens) {
  for (const Problem& problem : problems) {
    const auto tokens =
        static_cast<int64_t>(prompt_ids(tokenizer, problem.prompt, model.bos_token_id).size());
    COHORT_CHECK_INPUT(tokens > 0,
                       "rl.task: the prompt of problem {} is empty and the model has no begin "
                       "token; want some text",
                       problem.id);
    COHORT_CHECK_INPUT(tokens + max_new_tokens <= model.max_position_embeddings,
                       "rl.task: the prompt of problem {} has {} tokens, which with "
                       "rl.sampling.max_new_tokens={} exceed the model's {} positions; want a "
                       "shorter prompt or fewer new tokens",
                       problem.id,
                       tokens,
                       max_new_tokens,
                       model.max_position_embeddings);
  }
}

ordered_json named_json(const core::NamedOptions& named) {
  return {{"name", named.name}, {"weight", named.weight}, {"options", named.options}};
}

/// All that a line depends on beside the model.
ordered_json settings_json(const core::Config& config, const std::vector<Problem>& problems) {
  const core::SamplingConfig& sampling = config.rl.sampling;
  const core::SampleConfig& sample = config.sample;
  ordered_json rewards = ordered_json::array(), of_problems = ordered_json::array(), least;
  if (std::isfinite(sample.keep_at_least)) least = sample.keep_at_least;
  for (const auto& reward : config.rl.rewards) rewards.push_back(named_json(reward));
  for (const auto& problem : problems)
    of_problems.push_back({problem.id, problem.prompt, problem.data});
  return {{"rl.task", named_json(config.rl.task)},
          {"rl.rewards", rewards},
          {"rl.sampling",
           {{"max_new_tokens", sampling.max_new_tokens},
            {"temperature", sampling.temperature},
            {"top_k", sampling.top_k},
            {"top_p", sampling.top_p},
            {"min_p", sampling.min_p},
            {"stop", sampling.stop}}},
          {"run.seed", config.run.seed},
          {"train.precision", config.train.precision},
          {"sample.split", sample.split},
          {"sample.prompts", problems.size()},
          {"sample.samples_per_prompt", sample.samples_per_prompt},
          {"sample.keep_at_least", least},
          {"sample.keep_per_prompt", sample.keep_per_prompt},
          {"sample.choose", sample.choose},
          {"sample.deduplicate", sample.deduplicate},
          {"sample.keep_truncated", sample.keep_truncated},
          {"sample.top_logprobs", sample.top_logprobs},
          {"problems", hash_of(of_problems)}};
}

/// What a rank found out about one of its problems.
struct Outcome {
  SampleCounts counts;
  std::vector<std::string> lines;
};

class SampleRun {
 public:
  explicit SampleRun(const core::Config& config)
      : config_(config),
        mesh_(distributed::make_mesh(config.mesh)),
        folder_(open_model(config, mesh_)),
        tokenizer_(folder_.tokenizer()),
        tokenizer_hash_(tokenizer_xxh3(tokenizer_)),
        rewards_(reward_configs(config.rl.rewards)) {
    const auto task = make_task(task_config(config.rl.task, config.run.seed));
    problems_ = problems_of(config.sample, *task);
    check_lengths(problems_, tokenizer_, folder_.config, config.rl.sampling.max_new_tokens);
    const ordered_json settings = settings_json(config, problems_);
    config_hash_ = hash_of(settings);
    weights_hash_ = weights_xxh3(folder_, mesh_);
    plan_ = {{"model", folder_.path}, {"weights", weights_hash_}, {"tokenizer", tokenizer_hash_}};
    plan_.update(settings);
    const std::string result = hash_of(plan_);
    plan_["sample.prompts_per_part"] = config.sample.prompts_per_part;
    plan_["result"] = result;
  }

  ordered_json run(bool overwrite) {
    SampleParts parts(config_.sample.out, plan_);
    const ordered_json found = open(parts, overwrite);
    if (found.contains("summary")) {
      if (is_first()) spdlog::info("{} is finished already", parts.out());
      return found.at("summary");
    }
    const auto have = found.at("have").get<std::vector<bool>>();
    if (std::count(have.begin(), have.end(), false) > 0) draw(parts, have);
    return finish(parts);
  }

 private:
  bool is_first() const { return mesh_.shape.rank == 0; }

  int64_t num_parts() const {
    const int64_t size = config_.sample.prompts_per_part;
    return (static_cast<int64_t>(problems_.size()) + size - 1) / size;
  }

  /// What rank 0 finds on the disk, on all ranks: the summary, or which parts are there.
  ordered_json open(SampleParts& parts, bool overwrite) const {
    ordered_json found = ordered_json::object();
    if (is_first()) {
      try {
        parts.open(overwrite);
        if (const auto summary = parts.finished()) found["summary"] = *summary;
        found["have"] = ordered_json::array();
        for (int64_t part = 0; part < num_parts(); ++part) found["have"].push_back(parts.has(part));
      } catch (const InputError& error) {
        found["fault"] = error.what();
      }
    }
    found = ordered_json::parse(mesh_.world->all_gather_text(text_of(found))[0]);
    if (found.contains("fault")) throw InputError(found["fault"].get<std::string>());
    return found;
  }

  void draw(const SampleParts& parts, const std::vector<bool>& have) {
    moe::Transformer model(
        undrawn(folder_.config), mesh_.ep, 1, moe::dtype_of(config_.train.precision));
    load_model_weights(folder_, model);
    const core::RlConfig& rl = config_.rl;
    Generator generator(model,
                        &tokenizer_,
                        mesh_.ep,
                        {rl.max_running, rl.cache_tokens, false, config_.sample.top_logprobs});
    SampleCounts so_far;
    for (int64_t part = 0; part < num_parts(); ++part) {
      if (have[part]) {
        if (is_first()) so_far += read_counts(parts.counts(part));
        continue;
      }
      const SampleCounts counts = draw_part(part, generator, parts);
      so_far += counts;
      if (is_first())
        spdlog::info(
            "part {} of {}: kept {} of {} completions so far, {} of {} problems, {:.0f} "
            "tokens/s",
            part + 1,
            num_parts(),
            so_far.kept,
            so_far.samples,
            so_far.prompts,
            problems_.size(),
            static_cast<double>(counts.tokens) / std::max(counts.seconds, 1e-9));
    }
  }

  /// Rank r has every dp-th problem of the part, from the r-th on.
  SampleCounts draw_part(int64_t part, Generator& generator, const SampleParts& parts) {
    const double start = moe::seconds_now();
    const int64_t size = config_.sample.prompts_per_part, begin = part * size;
    const int64_t end = std::min(begin + size, static_cast<int64_t>(problems_.size()));
    std::vector<const Problem*> mine;
    for (int64_t i = begin + mesh_.dp->rank(); i < end; i += mesh_.dp->size())
      mine.push_back(&problems_[i]);
    const int64_t failures = rewards_.failures();
    ordered_json outcomes = ordered_json::array();
    for (const Outcome& one : complete(mine, generator))
      outcomes.push_back({{"counts", counts_json(one.counts)}, {"lines", one.lines}});
    const ordered_json told{{"failures", rewards_.failures() - failures}, {"outcomes", outcomes}};
    std::vector<ordered_json> of_rank;
    for (const std::string& text : mesh_.dp->all_gather_text(text_of(told)))
      of_rank.push_back(ordered_json::parse(text));

    SampleCounts counts;
    std::string lines;
    for (int64_t i = 0; i < end - begin; ++i) {
      const auto& one = of_rank[i % of_rank.size()]["outcomes"][i / of_rank.size()];
      counts += read_counts(one["counts"]);
      for (const auto& line : one["lines"]) lines += line.get_ref<const std::string&>() + "\n";
    }
    for (const auto& rank : of_rank) counts.reward_failures += rank["failures"].get<int64_t>();
    warn_of_failures(rewards_, counts.reward_failures, counts.samples, *mesh_.dp);
    counts.seconds = moe::seconds_now() - start;
    if (is_first()) parts.write(part, counts_json(counts), lines);
    return counts;
  }

  uint64_t sample_seed(const Problem& problem, int64_t i) const {
    const uint64_t of_run = core::random_bits(config_.run.seed, core::stream_of("sample"), 0);
    return core::random_bits(of_run, core::stream_of(problem.id), static_cast<uint64_t>(i));
  }

  std::vector<Outcome> complete(const std::vector<const Problem*>& problems, Generator& generator) {
    std::vector<GenerationRequest> requests;
    for (const Problem* problem : problems) {
      requests.push_back(
          {prompt_ids(tokenizer_, problem->prompt, folder_.config.bos_token_id), {}});
      for (int64_t i = 0; i < config_.sample.samples_per_prompt; ++i)
        requests.back().seeds.push_back(sample_seed(*problem, i));
    }
    const auto generated = generator.generate(requests, config_.rl.sampling);
    std::vector<Completion> batch;
    for (size_t i = 0; i < problems.size(); ++i)
      for (const Generated& one : generated[i])
        batch.push_back(completion_of(tokenizer_, *problems[i], one));
    const Scores scores = rewards_.score(batch);
    std::vector<Outcome> outcomes;
    size_t first = 0;
    for (size_t i = 0; i < problems.size(); ++i) {
      outcomes.push_back(outcome_of(*problems[i], generated[i], batch, scores, first));
      first += generated[i].size();
    }
    return outcomes;
  }

  /// Of a problem whose completions begin at `first` of the batch.
  Outcome outcome_of(const Problem& problem,
                     const std::vector<Generated>& generated,
                     const std::vector<Completion>& batch,
                     const Scores& scores,
                     size_t first) const {
    Outcome outcome;
    SampleCounts& counts = outcome.counts;
    std::vector<SampledCompletion> completions;
    for (size_t i = first; i < first + generated.size(); ++i) {
      completions.push_back({batch[i].text, batch[i].tokens, batch[i].truncated, scores.total[i]});
      counts.samples += 1;
      counts.tokens += batch[i].tokens;
      counts.truncated += batch[i].truncated;
      counts.passed += scores.components[0][i] >= 1;
      counts.reward += scores.total[i];
    }
    const uint64_t seed = core::random_bits(
        config_.run.seed, core::stream_of("sample.keep"), core::stream_of(problem.id));
    const Choice choice = choose(completions, config_.sample, seed);
    counts.prompts = 1;
    counts.kept = static_cast<int64_t>(choice.kept.size());
    counts.prompts_with_kept = !choice.kept.empty();
    counts.below = choice.below;
    counts.truncated_left_out = choice.truncated;
    counts.empty = choice.empty;
    counts.duplicates = choice.duplicates;
    counts.surplus = choice.surplus;
    for (const int64_t i : choice.kept) {
      counts.kept_tokens += completions[i].tokens;
      ordered_json line = line_of(problem, completions[i], i);
      for (size_t r = 0; r < scores.components.size(); ++r)
        line["rewards"][rewards_.labels()[r]] = scores.components[r][first + i];
      if (config_.sample.top_logprobs > 0) line["teacher"] = teacher_of(generated[i]);
      outcome.lines.push_back(text_of(line));
    }
    return outcome;
  }

  ordered_json line_of(const Problem& problem,
                       const SampledCompletion& completion,
                       int64_t sample) const {
    return {{"prompt", problem.prompt},
            {"completion", completion.text},
            {"problem", problem.id},
            {"sample", sample},
            {"reward", completion.reward},
            {"rewards", ordered_json::object()},
            {"tokens", completion.tokens},
            {"truncated", completion.truncated},
            {"seed", config_.run.seed},
            {"sample_seed", sample_seed(problem, sample)},
            {"model", folder_.path},
            {"weights", weights_hash_},
            {"config", config_hash_}};
  }

  ordered_json teacher_of(const Generated& generated) const {
    return teacher_json({tokenizer_hash_,
                         config_.sample.top_logprobs,
                         generated.tokens,
                         generated.top_tokens,
                         generated.top_log_prob});
  }

  /// The summary, on all ranks.
  ordered_json finish(const SampleParts& parts) const {
    ordered_json summary;
    if (is_first()) {
      SampleCounts counts;
      for (int64_t part = 0; part < num_parts(); ++part) counts += read_counts(parts.counts(part));
      summary = {{"out", parts.out()},
                 {"model", folder_.path},
                 {"weights", weights_hash_},
                 {"config", config_hash_},
                 {"result", plan_.at("result")}};
      summary.update(counts_summary(counts));
      parts.finish(num_parts(), summary);
      if (counts.kept == 0)
        spdlog::warn("none of {} completions is kept: {} are below sample.keep_at_least, {} cut",
                     counts.samples,
                     counts.below,
                     counts.truncated_left_out);
    }
    return ordered_json::parse(mesh_.world->all_gather_text(text_of(summary))[0]);
  }

  core::Config config_;
  distributed::Mesh mesh_;
  ModelFolder folder_;
  core::Tokenizer tokenizer_;
  std::string tokenizer_hash_, config_hash_, weights_hash_;
  RewardSum rewards_;
  std::vector<Problem> problems_;
  ordered_json plan_;
};

}  // namespace

ordered_json sample(const core::Config& config, bool overwrite) {
  return SampleRun(config).run(overwrite);
}

}  // namespace cohort::rl
