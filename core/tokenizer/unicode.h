// UTF-8 and the few Unicode facts that a tokenizer needs.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace cohort::core {

/// One step through UTF-8. When `valid` is false, `length` is the longest prefix of a well-formed
/// character that stands there (at least 1): what becomes one U+FFFD.
struct Utf8Step {
  uint32_t code_point;
  uint32_t length;
  bool valid;
};
/// The character at `at`, which is less than text.size().
Utf8Step utf8_at(std::string_view text, size_t at);
/// The code point of the character that ends just before `end`; U+FFFD when there is no such valid
/// character.
uint32_t utf8_before(std::string_view text, size_t end);
void append_utf8(std::string& out, uint32_t code_point);

/// Length of the longest well-formed prefix; text.size() when all of it is UTF-8.
size_t utf8_prefix(std::string_view text);
/// Every malformed part replaced by U+FFFD, as the Unicode standard (3.9, "maximal subparts")
/// advises and as browsers, Rust and Python do.
std::string replace_invalid_utf8(std::string text);

/// Normalisation form C of valid UTF-8. Linear up to the sorting of combining marks.
std::string nfc(std::string_view text);
/// Whether nfc would change nothing, decided from the bytes alone: all characters below U+0300.
bool is_surely_nfc(std::string_view text);

/// Property White_Space.
bool is_white_space(uint32_t code_point);
/// \w of UTS 18: alphabetic, marks, decimal digits, connector punctuation, join controls.
bool is_word_character(uint32_t code_point);

}  // namespace cohort::core
