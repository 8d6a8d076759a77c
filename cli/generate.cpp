// cohort generate: completions of prompts, to the terminal or to a file.
#include <cstdio>
#include <fstream>
#include <memory>

#include "cli/commands.h"
#include "cli/loaded_model.h"
#include "cli/prompts.h"
#include "cli/utf8_pieces.h"
#include "core/base/error.h"
#include "core/base/log.h"
#include "core/base/rng.h"
#include "core/chat/chat_folder.h"
#include "core/config/parse.h"
#include "core/config/values.h"
#include "distributed/launch.h"
#include "rl/generator.h"

namespace cohort::cli {
namespace {

using nlohmann::ordered_json;
using Completions = std::vector<std::vector<rl::Generated>>;

struct Arguments {
  ModelOptions model;
  std::vector<std::string> prompts, stop;
  std::string input, output;
  std::string temperature, top_p, top_k, min_p, max_new_tokens;
  int64_t samples = 1;
  uint64_t seed = 1;
  std::string system;
  bool json = false, no_bos = false, chat = false;
};

/// Checked by the parser of the config, whose section rl.sampling it is.
core::RlConfig read_settings(const Arguments& arguments) {
  std::vector<std::string> overrides;
  const auto add = [&overrides](const char* key, const std::string& value) {
    if (!value.empty()) overrides.push_back(fmt::format("rl.sampling.{}={}", key, value));
  };
  add("temperature", arguments.temperature);
  add("top_p", arguments.top_p);
  add("top_k", arguments.top_k);
  add("min_p", arguments.min_p);
  add("max_new_tokens", arguments.max_new_tokens);
  core::RlConfig rl = core::parse_config_text("run: {}", "defaults", overrides).rl;
  for (const std::string& text : arguments.stop) {
    COHORT_CHECK_INPUT(!text.empty(), "--stop: the text is empty; want what ends a completion");
    rl.sampling.stop.push_back(text);
  }
  return rl;
}

std::vector<Prompt> all_prompts(const Arguments& arguments) {
  COHORT_CHECK_INPUT(arguments.prompts.empty() != arguments.input.empty(),
                     "{}; want --prompt TEXT (which may be repeated) or --input FILE.jsonl",
                     arguments.input.empty() ? "there is no prompt" : "there are two sources");
  COHORT_CHECK_INPUT(arguments.chat || arguments.system.empty(),
                     "--system: a system message needs a chat; want --chat with it");
  if (!arguments.input.empty()) return read_prompts(arguments.input, arguments.chat);
  std::vector<Prompt> prompts;
  for (const std::string& text : arguments.prompts)
    prompts.push_back({text, {{"prompt", text}}, fmt::format("--prompt {}", prompts.size() + 1)});
  return prompts;
}

/// A prompt becomes a user's message; the template writes the text of the messages.
void write_chats(std::vector<Prompt>& prompts,
                 const Arguments& arguments,
                 const std::string& folder) {
  const core::FolderChat chat = core::read_folder_chat(folder);
  for (Prompt& prompt : prompts) {
    ordered_json messages = ordered_json::array();
    if (!arguments.system.empty())
      messages.push_back({{"role", "system"}, {"content", arguments.system}});
    if (prompt.fields.contains("messages")) {
      for (const auto& message : prompt.fields["messages"]) messages.push_back(message);
    } else {
      messages.push_back({{"role", "user"}, {"content", prompt.text}});
    }
    ordered_json variables = chat.variables;
    if (prompt.fields.contains("tools")) variables["tools"] = prompt.fields["tools"];
    try {
      prompt.text = chat.chat.render(messages, true, variables);
    } catch (const InputError& error) {
      throw InputError(fmt::format("{}: {}", prompt.where, error.what()));
    }
  }
}

rl::GenerationRequest request_of(const Prompt& prompt,
                                 size_t idx,
                                 const Arguments& arguments,
                                 const LoadedModel& loaded,
                                 int64_t max_new_tokens) {
  rl::GenerationRequest request;
  const core::ModelConfig& config = loaded.folder.config;
  // A chat template writes the begin token itself.
  if (config.bos_token_id >= 0 && !arguments.no_bos && !arguments.chat)
    request.prompt.push_back(static_cast<int32_t>(config.bos_token_id));
  const auto ids = loaded.tokenizer.encode(prompt.text);
  request.prompt.insert(request.prompt.end(), ids.begin(), ids.end());
  COHORT_CHECK_INPUT(!request.prompt.empty(),
                     "{}: the prompt is empty and has no begin token; want some text",
                     prompt.where);
  const auto length = static_cast<int64_t>(request.prompt.size());
  COHORT_CHECK_INPUT(
      length + max_new_tokens <= config.max_position_embeddings,
      "{}: {} tokens and {} new ones exceed the model's {} positions; want a shorter "
      "prompt or fewer --max-new-tokens",
      prompt.where,
      length,
      max_new_tokens,
      config.max_position_embeddings);
  for (int64_t i = 0; i < arguments.samples; ++i)
    request.seeds.push_back(core::random_bits(arguments.seed, idx, static_cast<uint64_t>(i)));
  return request;
}

/// Shows the tokens of the one completion as they come. The end token has no text to show.
class Stream {
 public:
  explicit Stream(const LoadedModel& loaded) : loaded_(loaded) {}
  void show(int32_t token) {
    const bool has_text = !loaded_.folder.config.is_end(token) &&
                          token < loaded_.tokenizer.vocab_size();  // a vocabulary may be padded
    if (has_text) put(pieces_.push(loaded_.tokenizer.token_bytes(token)));
  }
  void finish() { put(pieces_.finish() + "\n"); }

 private:
  static void put(const std::string& text) {
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
  }
  const LoadedModel& loaded_;
  Utf8Pieces pieces_;
};

std::string text_of(const rl::Generated& generated, const core::Tokenizer& tokenizer) {
  std::span<const int32_t> ids = generated.tokens;
  if (generated.stop == rl::StopReason::kEndToken) ids = ids.first(ids.size() - 1);
  return tokenizer.decode(ids);
}

ordered_json json_of(const Prompt& prompt,
                     int64_t sample,
                     const rl::Generated& generated,
                     const core::Tokenizer& tokenizer) {
  constexpr const char* kReasons[] = {"end_token", "stop_text", "length"};
  ordered_json json = prompt.fields;
  json["sample"] = sample;
  json["completion"] = text_of(generated, tokenizer);
  json["tokens"] = generated.tokens.size();
  json["stop"] = kReasons[static_cast<int>(generated.stop)];
  return json;
}

/// Lines of all ranks in the order of the prompts, on rank 0. Collective over dp.
std::vector<std::string> gather_lines(const std::vector<std::string>& mine,
                                      int64_t samples,
                                      size_t num_prompts,
                                      const distributed::Mesh& mesh) {
  const auto texts = mesh.dp->all_gather_text(ordered_json(mine).dump());
  std::vector<std::vector<std::string>> of_rank;
  for (const std::string& text : texts)
    of_rank.push_back(nlohmann::json::parse(text).get<std::vector<std::string>>());
  std::vector<std::string> lines;
  for (size_t i = 0; i < num_prompts; ++i)
    for (int64_t j = 0; j < samples; ++j)
      lines.push_back(of_rank[i % texts.size()][i / texts.size() * samples + j]);
  return lines;
}

/// To the file where one is open, else to stdout.
void write(const std::vector<std::string>& lines, std::ofstream& file, const std::string& path) {
  if (!file.is_open()) {
    for (const std::string& line : lines) fmt::print("{}\n", line);
    return;
  }
  for (const std::string& line : lines) file << line << "\n";
  file.flush();
  COHORT_CHECK(file.good(), "{}: could not be written to its end", path);
}

void print_counters(const rl::GeneratorCounters& counters, const distributed::Mesh& mesh) {
  at::Tensor sums = at::tensor(
      {counters.prompt_tokens, counters.prefix_hit_tokens, counters.generated_tokens}, at::kLong);
  at::Tensor seconds = at::full({1}, counters.seconds, at::kDouble);
  mesh.dp->all_reduce(sums);
  mesh.dp->all_reduce(seconds, distributed::ReduceOp::kMax);
  if (mesh.shape.rank != 0) return;
  const int64_t* sum = sums.const_data_ptr<int64_t>();
  fmt::print(stderr,
             "{} prompt tokens, {} more found in the cache; {} of {} cache blocks used at most; {} "
             "tokens in {:.2f} s, {:.0f} tokens/s\n",
             sum[0],
             sum[1],
             counters.peak_blocks,
             counters.total_blocks,
             sum[2],
             seconds.item<double>(),
             static_cast<double>(sum[2]) / std::max(seconds.item<double>(), 1e-9));
}

int run(const Arguments& arguments) {
  core::setup_logging(distributed::world_rank(), distributed::world_size());
  const core::RlConfig rl = read_settings(arguments);
  std::vector<Prompt> prompts = all_prompts(arguments);
  LoadedModel loaded(arguments.model);
  if (arguments.chat) write_chats(prompts, arguments, loaded.folder.path);
  const distributed::Mesh& mesh = loaded.mesh;
  std::ofstream file;
  if (!arguments.output.empty() && mesh.shape.rank == 0) {
    file.open(arguments.output, std::ios::binary | std::ios::trunc);
    COHORT_CHECK_INPUT(file.good(), "{}: cannot be written; want a file", arguments.output);
  }
  const bool as_json = arguments.json || !arguments.output.empty() || !arguments.input.empty();
  const bool streams = !as_json && prompts.size() == 1 && arguments.samples == 1;

  std::vector<size_t> mine;
  std::vector<rl::GenerationRequest> requests;
  for (size_t i = 0; i < prompts.size(); ++i) {  // each is checked on every rank
    auto request = request_of(prompts[i], i, arguments, loaded, rl.sampling.max_new_tokens);
    if (i % mesh.shape.dp != static_cast<size_t>(mesh.shape.dp_rank)) continue;
    mine.push_back(i);
    requests.push_back(std::move(request));
  }
  rl::Generator generator(
      loaded.model, &loaded.tokenizer, mesh.ep, {rl.max_running, rl.cache_tokens, false});
  Stream stream(loaded);
  rl::OnToken on_token;
  if (streams && !mine.empty())
    on_token = [&stream](int64_t, int64_t, int32_t token) { stream.show(token); };
  const Completions completions = generator.generate(requests, rl.sampling, on_token);

  std::vector<std::string> lines;
  for (size_t i = 0; i < mine.size(); ++i)
    for (int64_t j = 0; j < arguments.samples; ++j) {
      const rl::Generated& one = completions[i][j];
      lines.push_back(as_json ? json_of(prompts[mine[i]], j, one, loaded.tokenizer)
                                    .dump(-1, ' ', false, ordered_json::error_handler_t::replace)
                              : prompts[mine[i]].text + text_of(one, loaded.tokenizer) + "\n");
    }
  if (on_token) stream.finish();
  lines = gather_lines(lines, arguments.samples, prompts.size(), mesh);
  if (mesh.shape.rank == 0 && !streams) write(lines, file, arguments.output);
  print_counters(generator.counters(), mesh);
  if (loaded.quantization && mesh.shape.rank == 0)
    fmt::print(stderr, "{}\n", quantization_text(arguments.model, *loaded.quantization));
  return 0;
}

}  // namespace

Run add_generate(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  arguments->model.add_to(app);
  app.add_option("--prompt", arguments->prompts, "Text to go on from; may be repeated")
      ->allow_extra_args(false);
  app.add_option("--input", arguments->input, "JSONL file with a `prompt` a line");
  app.add_option(
      "--output",
      arguments->output,
      "JSONL file that gets each line's fields with sample, completion, tokens and stop");
  app.add_option("--max-new-tokens", arguments->max_new_tokens, "Longest completion, tokens [64]");
  app.add_option(
      "--temperature", arguments->temperature, "Of sampling [1]; 0: the likeliest token");
  app.add_option("--top-k", arguments->top_k, "Sample among the k likeliest [0]; 0: all");
  app.add_option(
      "--top-p", arguments->top_p, "Sample among the fewest that hold this probability [1]");
  app.add_option("--min-p",
                 arguments->min_p,
                 "Leave out what is less likely than this times the likeliest [0]");
  app.add_option("--stop", arguments->stop, "Text that ends a completion; may be repeated")
      ->allow_extra_args(false);
  app.add_option("--samples", arguments->samples, "Completions of each prompt")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--seed", arguments->seed, "Of the samples")->capture_default_str();
  app.add_flag("--chat",
               arguments->chat,
               "Write prompts by the model's chat template: a prompt is a user's message; lines of "
               "--input may have `messages` (and `tools`) instead");
  app.add_option("--system", arguments->system, "System message before each chat");
  app.add_flag("--no-bos", arguments->no_bos, "Leave the model's begin token out");
  app.add_flag("--json", arguments->json, "One JSON object a completion");
  return [arguments] { return run(*arguments); };
}

}  // namespace cohort::cli
