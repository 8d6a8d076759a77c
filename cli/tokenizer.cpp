// cohort tokenizer train | encode | decode
#include "core/tokenizer/tokenizer.h"

#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <iostream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "core/base/error.h"

namespace cohort::cli {
namespace {

using core::Tokenizer;
using nlohmann::json;

struct Options {
  // train
  core::TokenizerTrainOptions train;
  std::string out = "tokenizer.json";
  std::vector<std::string> files;
  // encode, decode
  std::string tokenizer;
  std::string text;
  std::vector<int64_t> ids;
  bool has_text = false, as_json = false, stats = false, plain = false, skip_special = false;
  Run chosen;
};

std::string read_stdin() {
  return {std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()};
}

int train(const Options& options) {
  const std::filesystem::path folder = std::filesystem::path(options.out).parent_path();
  COHORT_CHECK_INPUT(folder.empty() || std::filesystem::is_directory(folder),
                     "--out {}: the folder {} does not exist",
                     options.out,
                     folder.string());
  const auto start = std::chrono::steady_clock::now();
  const Tokenizer made = core::train_tokenizer(options.files, options.train);
  made.save(options.out);
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const int64_t num_special = static_cast<int64_t>(options.train.special_tokens.size());
  fmt::print("{}: {} tokens ({} special, 256 bytes, {} learned) in {:.1f} s\n",
             options.out,
             made.vocab_size(),
             num_special,
             made.vocab_size() - 256 - num_special,
             seconds);
  if (made.vocab_size() < options.train.vocab_size)
    fmt::print(stderr,
               "fewer than the {} asked for: no further pair is seen {} times in this text\n",
               options.train.vocab_size,
               options.train.min_frequency);
  return 0;
}

/// Processor time, which a busy machine does not lengthen.
void print_stats(const Tokenizer& tokenizer, const std::string& text, bool special) {
  const std::clock_t start = std::clock();
  const size_t tokens = tokenizer.encode(text, special).size();
  const double seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
  const json stats = {{"bytes", text.size()},
                      {"tokens", tokens},
                      {"bytes_per_token", tokens ? static_cast<double>(text.size()) / tokens : 0.0},
                      {"cpu_seconds", seconds},
                      {"mb_per_cpu_second", seconds > 0 ? text.size() / seconds / 1e6 : 0.0}};
  fmt::print("{}\n", stats.dump());
}

int encode(const Options& options) {
  const Tokenizer tokenizer = Tokenizer::load(options.tokenizer);
  const std::string text = options.has_text ? options.text : read_stdin();
  const bool special = !options.plain;
  if (options.stats) {
    print_stats(tokenizer, text, special);
    return 0;
  }
  const std::vector<int32_t> ids = tokenizer.encode(text, special);
  if (options.as_json) {
    json tokens = json::array();
    for (int32_t id : ids) tokens.push_back(tokenizer.decode(std::span(&id, 1)));
    fmt::print("{}\n", json{{"ids", ids}, {"tokens", tokens}}.dump());
  } else {
    fmt::print("{}\n", fmt::join(ids, " "));
  }
  return 0;
}

/// Ids as `encode` prints them, with or without --json; brackets and commas are passed over.
std::vector<int64_t> parse_ids(std::string text) {
  if (const size_t first = text.find_first_not_of(" \t\r\n");
      first != text.npos && text[first] == '{') {
    const json parsed = json::parse(text, nullptr, false);
    COHORT_CHECK_INPUT(parsed.is_object() && parsed.contains("ids") && parsed["ids"].is_array(),
                       "standard input: should be ids, or an object with a list 'ids'");
    text = parsed["ids"].dump();
  }
  std::vector<int64_t> ids;
  const std::string_view separators = " \t\r\n,[]";
  for (size_t at = 0; (at = text.find_first_not_of(separators, at)) != text.npos;) {
    const size_t end = std::min(text.find_first_of(separators, at), text.size());
    const std::string word = text.substr(at, end - at);
    COHORT_CHECK_INPUT(word.size() <= 10 && word.find_first_not_of("0123456789") == word.npos,
                       "standard input: '{}' is not a token id",
                       word.substr(0, 40));
    ids.push_back(std::stoll(word));
    at = end;
  }
  return ids;
}

int decode(const Options& options) {
  const Tokenizer tokenizer = Tokenizer::load(options.tokenizer);
  std::vector<int32_t> ids;
  for (int64_t id : options.ids.empty() ? parse_ids(read_stdin()) : options.ids) {
    COHORT_CHECK_INPUT(id >= 0 && id < tokenizer.vocab_size(),
                       "token id {}: {} has ids 0 to {}",
                       id,
                       options.tokenizer,
                       tokenizer.vocab_size() - 1);
    ids.push_back(static_cast<int32_t>(id));
  }
  std::string text = tokenizer.decode(ids, options.skip_special);
  if (isatty(STDOUT_FILENO)) text += '\n';  // into a file or a pipe: the very bytes
  std::fwrite(text.data(), 1, text.size(), stdout);
  return 0;
}

}  // namespace

Run add_tokenizer(CLI::App& app) {
  auto options = std::make_shared<Options>();
  app.require_subcommand(1);
  const auto add = [&](const char* name, const char* summary, int (*run)(const Options&)) {
    CLI::App* command = app.add_subcommand(name, summary);
    command->callback(
        [options, run] { options->chosen = [options, run] { return run(*options); }; });
    return command;
  };
  core::TokenizerTrainOptions& training = options->train;

  CLI::App* command = add("train", "Learn a byte-level BPE tokenizer from text files", train);
  command->add_option("files", options->files, "Text files, plain or .gz, UTF-8")->required();
  command->add_option("--out", options->out, "Where to write tokenizer.json")
      ->capture_default_str();
  command
      ->add_option("--vocab-size",
                   training.vocab_size,
                   "Number of tokens: special tokens, 256 bytes and learned ones")
      ->capture_default_str();
  command->add_option("--pretokenizer", training.pretokenizer, "deepseek, gpt2 or qwen2")
      ->capture_default_str();
  command
      ->add_option("--special",
                   training.special_tokens,
                   "A special token; may be given several times. They get the first ids")
      ->allow_extra_args(false)
      ->capture_default_str();
  command
      ->add_option("--min-frequency",
                   training.min_frequency,
                   "A pair seen less often in the text is not merged")
      ->capture_default_str();

  command = add("encode", "Text to token ids", encode);
  command->add_option("--tokenizer", options->tokenizer, "tokenizer.json")->required();
  command->add_option_function<std::string>(
      "--text",
      [options](const std::string& text) {
        options->text = text;
        options->has_text = true;
      },
      "The text; without this option it is read from standard input");
  command->add_flag("--json", options->as_json, "One object: ids and the text of each token");
  command->add_flag(
      "--stats", options->stats, "Count and time the tokens instead of printing them");
  command->add_flag("--plain", options->plain, "Take special tokens in the text for plain text");

  command = add("decode", "Token ids to text", decode);
  command->add_option("--tokenizer", options->tokenizer, "tokenizer.json")->required();
  command->add_option(
      "ids", options->ids, "Token ids; without any they are read from standard input");
  command->add_flag("--skip-special", options->skip_special, "Leave special tokens out");

  return [options] { return options->chosen(); };
}

}  // namespace cohort::cli
