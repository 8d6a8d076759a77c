// cohort data prepare | inspect | problems: text -> token sets, and a look into them; a task's
// problems.
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <numeric>

#include "cli/commands.h"
#include "cli/problems.h"
#include "core/base/error.h"
#include "core/base/log.h"
#include "core/data/indexed_dataset.h"
#include "core/data/prepare.h"
#include "core/tokenizer/tokenizer.h"

namespace cohort::cli {
namespace {

namespace fs = std::filesystem;
using core::Tokenizer;

/// Names that tokenizers in use give to the ends of a text, ours first.
const std::vector<std::string> kBeginNames{
    "<|begin|>", "<｜begin▁of▁sentence｜>", "<|begin_of_text|>", "<bos>", "<s>"};
const std::vector<std::string> kEndNames{
    "<|end|>", "<｜end▁of▁sentence｜>", "<|end_of_text|>", "<|endoftext|>", "<eos>", "</s>"};

struct PrepareArguments {
  core::PrepareOptions options;
  std::string split = "file", on_error = "skip", begin_token, end_token;
  int64_t train_tokenizer = 0;  ///< Vocabulary size; 0: a tokenizer is given.
  std::string pretokenizer = core::TokenizerTrainOptions().pretokenizer;
  double sample_mb = 100;
};

struct InspectArguments {
  std::string path, tokenizer;
  int64_t documents = 3;
};

int32_t named_token(const Tokenizer& tokenizer, const std::string& name, const char* option) {
  const auto id = tokenizer.token_id(name);
  COHORT_CHECK_INPUT(id, "{} '{}' is not a token of the tokenizer", option, name);
  return *id;
}

std::optional<int32_t> first_known(const Tokenizer& tokenizer,
                                   const std::vector<std::string>& names) {
  for (const auto& name : names)
    if (const auto id = tokenizer.token_id(name)) return id;
  return std::nullopt;
}

/// The tokens around each document. A tokenizer without a begin token gets its end token there, as
/// is usual for GPT-2's.
void choose_ends(const PrepareArguments& arguments,
                 const Tokenizer& tokenizer,
                 core::PrepareOptions& options) {
  if (!arguments.end_token.empty()) {
    options.end_token = named_token(tokenizer, arguments.end_token, "--end-token");
  } else {
    const auto known = first_known(tokenizer, kEndNames);
    COHORT_CHECK_INPUT(
        known,
        "{}: none of the usual end tokens ({}) is in it; name its own by --end-token",
        options.tokenizer,
        fmt::join(kEndNames, " "));
    options.end_token = *known;
  }
  options.begin_token = arguments.begin_token.empty()
                            ? first_known(tokenizer, kBeginNames).value_or(options.end_token)
                            : named_token(tokenizer, arguments.begin_token, "--begin-token");
}

/// Trains on a sample of the same inputs and leaves the tokenizer in OUT.
std::string train_tokenizer(const PrepareArguments& arguments) {
  COHORT_CHECK_INPUT(
      arguments.sample_mb > 0, "--sample-mb {} is not positive", arguments.sample_mb);
  core::TokenizerTrainOptions train;
  train.vocab_size = arguments.train_tokenizer;
  train.pretokenizer = arguments.pretokenizer;
  core::DocumentStream stream(arguments.options, static_cast<int64_t>(arguments.sample_mb * 1e6));
  const Tokenizer trained =
      core::train_tokenizer([&](std::string& text) { return stream.next(text); }, train);
  std::error_code why;
  fs::create_directories(arguments.options.out, why);
  COHORT_CHECK_INPUT(
      !why, "{}: the folder cannot be made: {}", arguments.options.out, why.message());
  const std::string path = (fs::path(arguments.options.out) / "tokenizer.json").string();
  trained.save(path);
  fmt::print("{}: {} tokens\n", path, trained.vocab_size());
  return path;
}

void print_card(const core::DataCard& card, const std::string& out) {
  const core::SourceCard total = card.total();
  constexpr int64_t kToldHere = 20;
  int64_t told = 0;
  for (const auto& source : card.sources)
    for (const auto& reason : source.reasons)
      if (++told <= kToldHere) spdlog::warn("skipped {}", reason);
  if (total.broken > std::min(told, kToldHere))
    spdlog::warn("skipped {} more; data_card.json has the first of each file",
                 total.broken - std::min(told, kToldHere));
  fmt::print("{} file(s), {:.1f} MB; documents kept {}, duplicates {}, too short {}, broken {}\n",
             card.sources.size(),
             static_cast<double>(total.file_bytes) / 1e6,
             total.documents,
             total.duplicates,
             total.too_short,
             total.broken);
  const auto print_set = [](const char* name, const core::SetCard& set) {
    fmt::print(
        "{:<10} {:>9} documents {:>12} tokens {:>12} bytes ({:.2f} bytes a token)\n",
        name,
        set.documents,
        set.tokens,
        set.bytes,
        static_cast<double>(set.bytes) / static_cast<double>(std::max<int64_t>(set.tokens, 1)));
  };
  print_set("train", card.train);
  print_set("validation", card.validation);
  if (card.validation.documents > 0) {
    fmt::print("gzip -9 on validation.txt: {:.3f} bits a byte\n",
               card.validation_gzip_bits_per_byte);
  } else {
    fmt::print("no document was held out: raise --validation-fraction to have a validation set\n");
  }
  fmt::print("{}\n", (fs::path(out) / "data_card.json").string());
}

int run_prepare(const PrepareArguments& arguments) {
  core::setup_logging(0, 1);
  core::PrepareOptions options = arguments.options;
  COHORT_CHECK_INPUT(options.tokenizer.empty() == (arguments.train_tokenizer != 0),
                     "give either --tokenizer FILE or --train-tokenizer VOCAB");
  if (options.tokenizer.empty()) options.tokenizer = train_tokenizer(arguments);
  const Tokenizer tokenizer = Tokenizer::load(options.tokenizer);
  options.vocab_size = tokenizer.vocab_size();
  choose_ends(arguments, tokenizer, options);
  const bool live = ::isatty(STDERR_FILENO);
  if (live)
    options.progress = [](int64_t documents, int64_t bytes) {
      fmt::print(stderr,
                 "\r{} documents, {:.1f} MB of text ",
                 documents,
                 static_cast<double>(bytes) / 1e6);
    };
  // Names of special tokens inside a text are text.
  const core::DataCard card = core::prepare(
      options, [&](std::string_view text) { return tokenizer.encode(text, /*special=*/false); });
  if (live) fmt::print(stderr, "\r\x1b[K");
  print_card(card, options.out);
  return 0;
}

std::string readable(std::string text) {
  constexpr size_t kShown = 400;
  if (text.size() <= kShown) return text;
  size_t end = kShown;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  return text.substr(0, end) + " ...";
}

void print_documents(const core::IndexedDataset& set, const InspectArguments& arguments) {
  std::string path = arguments.tokenizer;
  if (path.empty()) path = set.info().tokenizer;
  std::optional<Tokenizer> tokenizer;
  if (!path.empty() && (fs::exists(path) || !arguments.tokenizer.empty())) {
    tokenizer = Tokenizer::load(path);
  } else {
    fmt::print("  no tokenizer beside it; give one by --tokenizer to see text\n");
  }
  const int64_t shown = std::min(arguments.documents, set.num_documents());
  for (int64_t i = 0; i < shown; ++i) {
    const int64_t document = i * set.num_documents() / shown;  // Spread over the set.
    constexpr int64_t kTokens = 200;
    std::vector<int64_t> wide(std::min(kTokens, set.document_length(document)));
    set.read(document, 0, static_cast<int64_t>(wide.size()), wide.data());
    const std::vector<int32_t> ids(wide.begin(), wide.end());
    fmt::print("-- document {}, {} tokens\n", document, set.document_length(document));
    fmt::print(
        "{}\n",
        tokenizer ? readable(tokenizer->decode(ids)) : fmt::format("{}", fmt::join(ids, " ")));
  }
}

void inspect_set(const std::string& prefix, const InspectArguments& arguments) {
  const core::IndexedDataset set(prefix);
  const core::TokenSetInfo& info = set.info();
  const int64_t count = set.num_documents();
  std::vector<int64_t> lengths(count);
  for (int64_t d = 0; d < count; ++d) lengths[d] = set.document_length(d);
  std::sort(lengths.begin(), lengths.end());
  fmt::print("{}\n", set.prefix());
  fmt::print("  documents   {}\n", count);
  if (count > 0)
    fmt::print("  tokens      {} (a document: least {}, median {}, most {})\n",
               set.num_tokens(),
               lengths.front(),
               lengths[count / 2],
               lengths.back());
  fmt::print("  size        {:.1f} MB, {} bytes a token\n",
             static_cast<double>(set.num_tokens() * set.token_bytes()) / 1e6,
             set.token_bytes());
  if (info.bytes > 0)
    fmt::print("  text        {} bytes, {:.2f} bytes a token\n",
               info.bytes,
               static_cast<double>(info.bytes) /
                   static_cast<double>(std::max<int64_t>(set.num_tokens(), 1)));
  if (!info.tokenizer.empty())
    fmt::print("  tokenizer   {} (xxh3 {})\n", info.tokenizer, info.tokenizer_xxh3);
  // Without a recorded vocabulary ids need only be ids.
  const int64_t vocab_size = info.vocab_size > 0 ? info.vocab_size : int64_t{1} << 31;
  set.check_tokens(vocab_size);
  if (info.vocab_size > 0)
    fmt::print("  vocabulary  {}; every token is in it\n", info.vocab_size);
  else
    fmt::print("  vocabulary  not recorded\n");
  if (arguments.documents > 0) print_documents(set, arguments);
}

int run_inspect(const InspectArguments& arguments) {
  COHORT_CHECK_INPUT(arguments.documents >= 0, "--documents {} is negative", arguments.documents);
  std::vector<std::string> prefixes{arguments.path};
  if (fs::is_directory(arguments.path)) {
    prefixes.clear();
    for (const auto& entry : fs::directory_iterator(arguments.path))
      if (entry.path().extension() == ".idx")
        prefixes.push_back(core::token_set_prefix(entry.path().string()));
    std::sort(prefixes.begin(), prefixes.end());
    COHORT_CHECK_INPUT(
        !prefixes.empty(),
        "{}: no token set (.idx and .bin) in this folder; `cohort data prepare` writes "
        "them",
        arguments.path);
  }
  for (const auto& prefix : prefixes) inspect_set(prefix, arguments);
  return 0;
}

void add_prepare_options(CLI::App& app, PrepareArguments& arguments) {
  core::PrepareOptions& options = arguments.options;
  app.add_option(
         "inputs",
         options.inputs,
         "Files, folders or quoted patterns; text, or JSON lines (.jsonl, .ndjson, .json), plain, "
         ".gz or .zst")
      ->required()
      ->type_name("INPUT");
  app.add_option("--out", options.out, "Folder for train.*, validation.*, data_card.json")
      ->required()
      ->type_name("DIR");
  app.add_option("--tokenizer", options.tokenizer, "tokenizer.json to encode with; copied to OUT")
      ->type_name("FILE");
  app.add_option("--train-tokenizer",
                 arguments.train_tokenizer,
                 "Train a tokenizer of so many tokens on these inputs first")
      ->type_name("VOCAB");
  app.add_option("--sample-mb",
                 arguments.sample_mb,
                 "Text to train the tokenizer on, from the start of the inputs, MB")
      ->capture_default_str();
  app.add_option("--pretokenizer",
                 arguments.pretokenizer,
                 "Of the tokenizer to train: gpt2, qwen2, deepseek")
      ->capture_default_str();
  app.add_option("--validation-fraction",
                 options.validation_fraction,
                 "Share of documents to hold out, by a hash of their text")
      ->capture_default_str();
  app.add_option("--min-chars", options.min_chars, "Drop documents of fewer characters")
      ->capture_default_str();
  app.add_option("--field", options.text.field, "Field of a JSON line that holds the text")
      ->capture_default_str();
  app.add_option(
         "--split", arguments.split, "Documents of a text file: file (one), blank-lines, lines")
      ->check(CLI::IsMember({"file", "blank-lines", "lines"}))
      ->capture_default_str();
  app.add_option("--on-error", arguments.on_error, "Broken input: skip (and count) or fail")
      ->check(CLI::IsMember({"skip", "fail"}))
      ->capture_default_str();
  app.add_option("--begin-token",
                 arguments.begin_token,
                 "Put before each document (default: the tokenizer's usual one)");
  app.add_option("--end-token",
                 arguments.end_token,
                 "Put after each document (default: the tokenizer's usual one)");
  app.add_option("--threads", options.threads, "Encoding threads; 0: one a core")
      ->capture_default_str();
}

}  // namespace

Run add_data(CLI::App& app) {
  app.require_subcommand(1);
  const auto prepare_arguments = std::make_shared<PrepareArguments>();
  CLI::App* prepare =
      app.add_subcommand("prepare", "Text -> token sets for training and validation");
  add_prepare_options(*prepare, *prepare_arguments);

  const auto inspect_arguments = std::make_shared<InspectArguments>();
  CLI::App* inspect =
      app.add_subcommand("inspect", "Tell what token sets hold, and check every token");
  inspect
      ->add_option(
          "path", inspect_arguments->path, "PREFIX of a .bin/.idx pair, or a folder of them")
      ->required()
      ->type_name("PREFIX|DIR");
  inspect->add_option("--documents", inspect_arguments->documents, "Documents to show of each set")
      ->capture_default_str();
  inspect->add_option("--tokenizer", inspect_arguments->tokenizer, "tokenizer.json to decode with")
      ->type_name("FILE");

  CLI::App* problems = app.add_subcommand(
      "problems", "Write the problems of a task, for instance to make worked examples of");
  const Run run_problems = add_problems(*problems);

  return [=] {
    if (problems->parsed()) return run_problems();
    if (!prepare->parsed()) return run_inspect(*inspect_arguments);
    core::PrepareOptions& options = prepare_arguments->options;
    const std::string& split = prepare_arguments->split;
    options.text.split = split == "file"    ? core::Split::file
                         : split == "lines" ? core::Split::lines
                                            : core::Split::blank_lines;
    options.stop_at_broken = prepare_arguments->on_error == "fail";
    return run_prepare(*prepare_arguments);
  };
}

}  // namespace cohort::cli
