// train_tokenizer: texts -> counted pre-tokens -> merges -> tokenizer.json.
#include <algorithm>
#include <numeric>

#include "core/tokenizer/byte_level.h"
#include "core/tokenizer/bytes_index.h"
#include "core/tokenizer/definition.h"
#include "core/tokenizer/merge_learner.h"
#include "core/tokenizer/pretokenizer.h"
#include "core/tokenizer/pretokens.h"
#include "core/tokenizer/text_files.h"
#include "core/tokenizer/tokenizer.h"

namespace cohort::core {
namespace {

using nlohmann::json;

constexpr int64_t kMaxVocabSize = 1 << 24;
// A longer pre-token (base64, a line of dashes) is counted in pieces: each merge walks through all
// of a word, and nothing of that length becomes a token.
constexpr size_t kMaxWordBytes = 1024;

void check(const TokenizerTrainOptions& options) {
  const int64_t least = 256 + static_cast<int64_t>(options.special_tokens.size());
  COHORT_CHECK_INPUT(options.vocab_size >= least && options.vocab_size <= kMaxVocabSize,
                     "vocab_size {} should be {} (256 bytes and {} special tokens) to {}",
                     options.vocab_size,
                     least,
                     options.special_tokens.size(),
                     kMaxVocabSize);
  COHORT_CHECK_INPUT(
      options.min_frequency >= 1, "min_frequency {} should be at least 1", options.min_frequency);
  std::unordered_set<std::string> seen;
  for (const std::string& token : options.special_tokens) {
    COHORT_CHECK_INPUT(!token.empty(), "special token {} is empty", seen.size());
    COHORT_CHECK_INPUT(
        utf8_prefix(token) == token.size(), "special token {} is not UTF-8", seen.size());
    const auto bytes = from_byte_level(token);
    COHORT_CHECK_INPUT(
        !bytes || bytes->size() > 1,
        "special token '{}' is a single byte, which is a token already: use a longer one",
        token);
    COHORT_CHECK_INPUT(seen.insert(token).second, "special token '{}' is given twice", token);
  }
}

/// Special tokens, then the 256 bytes in the order of their characters.
TokenizerDefinition base_definition(const TokenizerTrainOptions& options) {
  TokenizerDefinition made;
  made.name = "trained tokenizer";
  made.header = pretokenizer_preset(options.pretokenizer);
  made.is_nfc = !made.header["normalizer"].is_null();
  made.header["decoder"] = {{"type", "ByteLevel"},
                            {"add_prefix_space", true},
                            {"trim_offsets", true},
                            {"use_regex", true}};
  made.model = {{"dropout", nullptr},
                {"unk_token", nullptr},
                {"continuing_subword_prefix", nullptr},
                {"end_of_word_suffix", nullptr},
                {"fuse_unk", false},
                {"byte_fallback", false},
                {"ignore_merges", false}};
  for (const std::string& token : options.special_tokens) {
    AddedToken added;
    added.id = static_cast<int32_t>(made.vocabulary.size());
    added.content = token;
    added.special = true;
    made.added.push_back(added);
    made.vocabulary.push_back(token);
  }
  std::vector<uint32_t> characters(byte_characters().begin(), byte_characters().end());
  std::sort(characters.begin(), characters.end());
  for (uint32_t character : characters) append_utf8(made.vocabulary.emplace_back(), character);
  return made;
}

class WordCounter {
 public:
  explicit WordCounter(const TokenizerDefinition& definition)
      : is_nfc_(definition.is_nfc),
        pretokenizer_(
            JsonField(definition.header["pre_tokenizer"], definition.name, "pre_tokenizer")) {}

  void add(std::string_view text) {
    split_at_broken_utf8(
        text,
        [&](std::string_view valid) {
          with_nfc(is_nfc_, valid, [&](std::string_view normal) {
            pretokenizer_.split(normal, scratch_, [&](std::string_view word) { count(word); });
          });
        },
        [](std::string_view) {});  // broken bytes teach nothing
  }

  bool empty() const { return counts_.empty(); }

  CountedWords words(const std::array<int32_t, 256>& ids) const {
    CountedWords out;
    out.counts = counts_;
    out.symbols.reserve(words_.num_bytes());
    for (uint32_t word = 0; word < words_.size(); ++word) {
      for (char byte : words_.key(word))
        out.symbols.push_back(ids[static_cast<unsigned char>(byte)]);
      out.begins.push_back(out.symbols.size());
    }
    return out;
  }

 private:
  void count(std::string_view word) {
    for (; word.size() > kMaxWordBytes; word.remove_prefix(kMaxWordBytes))
      count(word.substr(0, kMaxWordBytes));
    const uint32_t index = words_.insert(word);
    if (index == counts_.size()) counts_.push_back(0);
    ++counts_[index];
  }

  bool is_nfc_;
  Pretokenizer pretokenizer_;
  MatchScratch scratch_;
  BytesIndex words_;
  std::vector<int64_t> counts_;
};

}  // namespace

Tokenizer train_tokenizer(const std::function<bool(std::string&)>& next,
                          const TokenizerTrainOptions& options) {
  check(options);
  TokenizerDefinition definition = base_definition(options);
  MergeTask task;
  {
    WordCounter counter(definition);
    for (std::string text; next(text);) counter.add(text);
    COHORT_CHECK_INPUT(!counter.empty(), "there is no text to train a tokenizer on");
    std::array<int32_t, 256> ids;
    for (int byte = 0; byte < 256; ++byte) {
      const std::string token = to_byte_level(std::string(1, static_cast<char>(byte)));
      ids[byte] = static_cast<int32_t>(
          std::find(definition.vocabulary.begin(), definition.vocabulary.end(), token) -
          definition.vocabulary.begin());
    }
    task.vocabulary = std::move(definition.vocabulary);
    task.taken.insert(options.special_tokens.begin(), options.special_tokens.end());
    learn_merges(counter.words(ids), options.vocab_size, options.min_frequency, task);
  }
  definition.vocabulary = std::move(task.vocabulary);
  definition.merges = std::move(task.merges);
  return Tokenizer::parse(write_definition(definition), definition.name);
}

Tokenizer train_tokenizer(const std::vector<std::string>& files,
                          const TokenizerTrainOptions& options) {
  check(options);
  pretokenizer_preset(options.pretokenizer);
  TextFiles texts(files);
  return train_tokenizer([&](std::string& text) { return texts.next(text); }, options);
}

}  // namespace cohort::core
