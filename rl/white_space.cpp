#include "rl/white_space.h"

#include <initializer_list>

namespace cohort::rl {

size_t white_space_at(std::string_view text, size_t at) {
  const auto byte = static_cast<unsigned char>(text[at]);
  if ((byte >= 0x09 && byte <= 0x0D) || (byte >= 0x1C && byte <= 0x20)) return 1;
  if (byte < 0xC2) return 0;
  // U+0085 U+00A0 | U+1680 U+2000-200A U+2028 U+2029 U+202F U+205F U+3000
  const std::string_view rest = text.substr(at);
  for (const std::string_view space : {"\xC2\x85", "\xC2\xA0"})
    if (rest.starts_with(space)) return 2;
  for (const std::string_view space : {"\xE1\x9A\x80",
                                       "\xE2\x80\xA8",
                                       "\xE2\x80\xA9",
                                       "\xE2\x80\xAF",
                                       "\xE2\x81\x9F",
                                       "\xE3\x80\x80"})
    if (rest.starts_with(space)) return 3;
  const bool spaces = rest.size() >= 3 && rest.starts_with("\xE2\x80") &&
                      static_cast<unsigned char>(rest[2]) >= 0x80 &&
                      static_cast<unsigned char>(rest[2]) <= 0x8A;
  return spaces ? 3 : 0;
}

size_t trailing_white_space(std::string_view text) {
  size_t begin = text.size();
  for (size_t at = 0; at < text.size();) {
    const size_t length = white_space_at(text, at);
    if (length == 0)
      begin = text.size();
    else if (begin == text.size())
      begin = at;
    at += length ? length : 1;
  }
  return begin;
}

int64_t count_words(std::string_view text) {
  int64_t words = 1;
  bool in_space = false;
  for (size_t at = 0; at < text.size();) {
    const size_t length = white_space_at(text, at);
    words += length > 0 && !in_space;
    in_space = length > 0;
    at += length ? length : 1;
  }
  return words;
}

}  // namespace cohort::rl
