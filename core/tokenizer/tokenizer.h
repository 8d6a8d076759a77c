// Byte-level BPE that reads and writes Hugging Face `tokenizer.json` (GPT-2, DeepSeek-V3 and Qwen2
// pre-tokenisers).
#pragma once
#include <cstdint>
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
  /// Throws InputError naming the file and the field when it is not a byte-level BPE that Cohort
  /// knows.
  static Tokenizer load(const std::string& path);
  static Tokenizer parse(std::string_view json, const std::string& name);
  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;

  void save(const std::string& path) const;
  std::string to_json() const;

  /// Ids of a text; special tokens inside it are recognised unless `special` is false; none is
  /// added.
  std::vector<int32_t> encode(std::string_view text, bool special = true) const;
  /// Exact inverse of encode for valid UTF-8 (after the tokenizer's normaliser, if it has one);
  /// bytes that do not form UTF-8 are replaced by U+FFFD as Hugging Face does. `skip_special` drops
  /// special tokens.
  std::string decode(std::span<const int32_t> ids, bool skip_special = false) const;
  /// The raw bytes behind one id.
  std::string token_bytes(int32_t id) const;

  /// One more than the largest id.
  int64_t vocab_size() const;
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

/// Trains byte-level BPE on texts handed out by `next` (false at the end).
Tokenizer train_tokenizer(const std::vector<std::string>& files,
                          const TokenizerTrainOptions& options);

}  // namespace cohort::core
