// Texts and small tokenizers for the tokenizer's tests.
#pragma once
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "core/tokenizer/tokenizer.h"
#include "core/tokenizer/unicode.h"

namespace cohort::tests {

/// Something like English: words of a small vocabulary, the same for the same seed.
inline std::string english(unsigned seed, int num_words = 60) {
  static const std::vector<std::string> words = {
      "the",     "of",      "and",    "lower",   "lowest", "new",    "newer",   "token",
      "tokens",  "merging", "merged", "don't",   "we'll",  "expert", "experts", "router",
      "routing", "in",      "king",   "sing",    "12",     "2048",   "(see",    "below)",
      "naïve",   "café",    "学习",   "mixture", "model",  "models"};
  std::mt19937 random(seed);
  std::string text;
  for (int i = 0; i < num_words; ++i) {
    text += words[random() % words.size()];
    const unsigned end = random() % 16;
    text += end == 0 ? ".\n" : end == 1 ? ", " : end == 2 ? "\n\n" : " ";
  }
  return text;
}

/// Characters of every kind, up to `length` of them: scripts, marks, controls, spaces, emoji,
/// special tokens in pieces, any code point.
inline std::string random_text(std::mt19937& random, unsigned length) {
  static const std::vector<std::string> parts = {"a",
                                                 "B",
                                                 "z",
                                                 " ",
                                                 "  ",
                                                 "\n",
                                                 "\r\n",
                                                 "\t",
                                                 "'s",
                                                 "'",
                                                 "\"",
                                                 "1",
                                                 "23",
                                                 "_",
                                                 "-",
                                                 ".",
                                                 "<|",
                                                 "|>",
                                                 "<think",
                                                 ">",
                                                 "é",
                                                 "e\u0301",
                                                 "ß",
                                                 "ж",
                                                 "字",
                                                 "あ",
                                                 "한",
                                                 "\u1112\u1161\u11ab",
                                                 "\u00a0",
                                                 "\u3000",
                                                 "\u200d",
                                                 "\u0323\u0307",
                                                 std::string(1, '\0'),
                                                 "\u0085",
                                                 "🙂",
                                                 "👩‍👧",
                                                 "٣",
                                                 "½",
                                                 "\u17a4"};
  std::string text;
  for (unsigned i = 1 + random() % length; i > 0; --i) {
    if (random() % 4) {
      text += parts[random() % parts.size()];
      continue;
    }
    const uint32_t code_point = random() % (random() % 2 ? 0x3000 : 0x110000);
    if (code_point < 0xD800 || code_point > 0xDFFF) core::append_utf8(text, code_point);
  }
  return text;
}

/// A tokenizer trained on such English, made once.
inline const core::Tokenizer& trained(const std::string& kind, int64_t vocab_size) {
  static std::map<std::pair<std::string, int64_t>, std::unique_ptr<core::Tokenizer>> made;
  auto& tokenizer = made[{kind, vocab_size}];
  if (!tokenizer) {
    core::TokenizerTrainOptions options;
    options.vocab_size = vocab_size;
    options.pretokenizer = kind;
    options.min_frequency = 1;
    unsigned seed = 0;
    tokenizer = std::make_unique<core::Tokenizer>(core::train_tokenizer(
        [&](std::string& text) {
          text = english(seed, 400);
          return seed++ < 8;
        },
        options));
  }
  return *tokenizer;
}

}  // namespace cohort::tests
