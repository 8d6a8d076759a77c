// Byte-level BPE that reads and writes Hugging Face `tokenizer.json` (GPT-2, DeepSeek-V3 and Qwen2
// pre-tokenisers, and others made of the same parts).
//
// Ids equal those of Hugging Face's `tokenizers` with add_special_tokens=False. What is read:
//   model          BPE whose vocabulary holds every byte; ignore_merges. Ids without gaps.
//   pre_tokenizer  ByteLevel, alone or at the end of a Sequence of Split (Regex or String,
//   Isolated)
//                  and Digits. Patterns run in PCRE2; a character newer than its Unicode tables (14
//                  in PCRE2 10.42) may be cut differently.
//   normalizer     null, NFC, or a Sequence of those.
//   added_tokens   with single_word, lstrip, rstrip, normalized, special.
//   decoder        ByteLevel.
// Anything else is refused by name. post_processor, truncation and padding are kept for writing and
// have no effect: encode adds nothing and cuts nothing. One thing differs on purpose: an added
// token decodes to its content even where Hugging Face's decoder takes letters such as 'é' in it
// for bytes.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace cohort::core {

/// Thread safe: encode and decode may run on many threads at once.
class Tokenizer {
 public:
  /// Throws InputError, one line naming the file and the field, when it is not a byte-level BPE
  /// that Cohort knows.
  static Tokenizer load(const std::string& path);
  static Tokenizer parse(std::string_view json, const std::string& name);
  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;

  /// Written beside and renamed into place.
  void save(const std::string& path) const;
  std::string to_json() const;

  /// Ids of a text; special tokens inside it are recognised unless `special` is false (added tokens
  /// that are not special always are); none is added. Bytes that do not form UTF-8 are no error:
  /// each run of them is a word of its own, whose ids stand for exactly these bytes (see
  /// token_bytes). Throws InputError when a pattern of the tokenizer needs too much backtracking on
  /// this text.
  std::vector<int32_t> encode(std::string_view text, bool special = true) const;
  /// Exact inverse of encode for valid UTF-8 (after the tokenizer's normaliser, if it has one, and
  /// but for what add_prefix_space adds or lstrip and rstrip take);
  /// bytes that do not form UTF-8 are replaced by U+FFFD as Hugging Face does. `skip_special` drops
  /// special tokens. An id without a token (a model's vocabulary may be padded) gives no text.
  std::string decode(std::span<const int32_t> ids, bool skip_special = false) const;
  /// The raw bytes behind one id. Throws InputError when there is no such id.
  std::string token_bytes(int32_t id) const;

  /// One more than the largest id.
  int64_t vocab_size() const;
  /// Id of a token as tokenizer.json writes it ("<|end|>", "\u0120the" for " the").
  std::optional<int32_t> token_id(std::string_view content) const;

 private:
  struct State;
  Tokenizer();
  std::shared_ptr<const State> state_;
};

struct TokenizerTrainOptions {
  int64_t vocab_size = 4096;              ///< All tokens: 256 bytes, merges and special tokens.
  std::string pretokenizer = "deepseek";  ///< gpt2 | qwen2 | deepseek
  std::vector<std::string> special_tokens{"<|begin|>",
                                          "<|end|>"};  ///< They get ids 0, 1, ... in this order.
  int64_t min_frequency = 2;                           ///< A pair seen less often is never merged.
};

/// Trains byte-level BPE on the texts that `next` hands out (it returns false at the end), with the
/// ids and merges of Hugging Face's BpeTrainer on the same texts. Ids: special tokens, the 256
/// bytes, merges. The result is smaller than vocab_size when no pair is seen min_frequency times
/// any more. The same texts in any order give the same tokenizer. Throws InputError at a bad option
/// or when there is no text. Parts that are not UTF-8 are passed over.
Tokenizer train_tokenizer(const std::function<bool(std::string&)>& next,
                          const TokenizerTrainOptions& options);
/// The same on text files, plain or gzip, read block by block (cut at line ends).
Tokenizer train_tokenizer(const std::vector<std::string>& files,
                          const TokenizerTrainOptions& options);

}  // namespace cohort::core
