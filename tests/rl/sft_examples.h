// Examples written to files, and a tokenizer with the tokens of ChatML.
#pragma once
#include <string>
#include <vector>

#include "core/base/rng.h"
#include "core/tokenizer/tokenizer.h"
#include "rl/sft_rows.h"
#include "tests/scratch_folder.h"

namespace cohort::tests {

/// Four special tokens, <|begin|> 0, <|end|> 1, <|im_start|> 2, <|im_end|> 3, bytes, and merges
/// that make "line" and "text" words. Up to 280 tokens.
inline core::Tokenizer chat_tokenizer() {
  int texts = 0;
  const auto next = [&](std::string& text) {
    text = "a line of text";
    return ++texts < 5;
  };
  return core::train_tokenizer(
      next, {280, "gpt2", {"<|begin|>", "<|end|>", "<|im_start|>", "<|im_end|>"}, 2});
}

inline rl::SftFormat format_of(const core::Tokenizer& tokenizer) {
  rl::SftFormat format;
  format.tokenizer = &tokenizer;
  format.bos_token_id = 0;
  format.eos_token_id = 1;
  return format;
}

/// `count` examples of many lengths: prompts of 1 to 9 letters, completions of 1 to 12.
inline std::string made_up_examples(int64_t count, uint64_t seed) {
  std::string lines;
  const auto letters = [&](int64_t i, uint64_t stream, uint64_t most) {
    std::string text;
    for (uint64_t n = 1 + core::random_bits(seed, stream, i) % most; n > 0; --n)
      text += static_cast<char>('a' + core::random_bits(seed, stream + n + 1, i) % 26);
    return text;
  };
  for (int64_t i = 0; i < count; ++i)
    lines += R"({"prompt": ")" + letters(i, 100, 9) + R"(", "completion": ")" +
             letters(i, 200, 12) + "\"}\n";
  return lines;
}

}  // namespace cohort::tests
