#include "core/tokenizer/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "core/base/error.h"

namespace cohort::core {

Utf8Step utf8_at(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) -> uint32_t {
    return at + i < text.size() ? static_cast<unsigned char>(text[at + i]) : 0u;
  };
  const uint32_t first = byte(0);
  if (first < 0x80) return {first, 1, true};
  uint32_t length = 0, low = 0x80, high = 0xBF;  // bounds of the second byte
  if (first >= 0xC2 && first <= 0xDF) {
    length = 2;
  } else if (first >= 0xE0 && first <= 0xEF) {
    length = 3;
    if (first == 0xE0) low = 0xA0;   // no overlong forms
    if (first == 0xED) high = 0x9F;  // no surrogates
  } else if (first >= 0xF0 && first <= 0xF4) {
    length = 4;
    if (first == 0xF0) low = 0x90;
    if (first == 0xF4) high = 0x8F;  // nothing above U+10FFFF
  } else {
    return {0xFFFD, 1, false};
  }
  uint32_t code_point = first & (0x7Fu >> length);
  for (uint32_t i = 1; i < length; ++i) {
    const uint32_t next = byte(i);
    if (next < low || next > high) return {0xFFFD, i, false};
    code_point = code_point << 6 | (next & 0x3F);
    low = 0x80;
    high = 0xBF;
  }
  return {code_point, length, true};
}

uint32_t utf8_before(std::string_view text, size_t end) {
  for (size_t length = 1; length <= 4 && length <= end; ++length) {
    const unsigned char byte = static_cast<unsigned char>(text[end - length]);
    if ((byte & 0xC0) == 0x80) continue;
    const Utf8Step step = utf8_at(text.substr(0, end), end - length);
    return step.valid && step.length == length ? step.code_point : 0xFFFD;
  }
  return 0xFFFD;
}

void append_utf8(std::string& out, uint32_t code_point) {
  const auto put = [&](uint32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (code_point < 0x80) {
    put(code_point);
  } else if (code_point < 0x800) {
    put(0xC0 | code_point >> 6);
    put(0x80 | (code_point & 0x3F));
  } else if (code_point < 0x10000) {
    put(0xE0 | code_point >> 12);
    put(0x80 | (code_point >> 6 & 0x3F));
    put(0x80 | (code_point & 0x3F));
  } else {
    put(0xF0 | code_point >> 18);
    put(0x80 | (code_point >> 12 & 0x3F));
    put(0x80 | (code_point >> 6 & 0x3F));
    put(0x80 | (code_point & 0x3F));
  }
}

size_t utf8_prefix(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    uint64_t block;
    while (at + sizeof block <= text.size()) {  // eight ASCII bytes at a time
      std::memcpy(&block, text.data() + at, sizeof block);
      if (block & 0x8080808080808080ull) break;
      at += sizeof block;
    }
    if (at >= text.size()) break;
    const Utf8Step step = utf8_at(text, at);
    if (!step.valid) break;
    at += step.length;
  }
  return at;
}

std::string replace_invalid_utf8(std::string text) {
  size_t at = utf8_prefix(text);
  if (at == text.size()) return text;
  std::string out(text, 0, at);
  const std::string_view view = text;
  while (at < text.size()) {
    out += "\xEF\xBF\xBD";
    at += utf8_at(text, at).length;
    const size_t valid = utf8_prefix(view.substr(at));
    out.append(view.substr(at, valid));
    at += valid;
  }
  return out;
}

bool is_surely_nfc(std::string_view text) {
  // Lead bytes up to 0xCB are the characters below U+0300.
  return std::none_of(
      text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) >= 0xCC; });
}

std::string nfc(std::string_view text) {
  std::vector<utf8proc_int32_t> points;
  points.reserve(text.size());
  utf8proc_int32_t decomposed[32];  // the longest canonical decomposition has four characters
  int boundary_class = 0;
  for (size_t at = 0; at < text.size();) {
    const Utf8Step step = utf8_at(text, at);
    at += step.length;
    const auto count = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(step.code_point),
                                               decomposed,
                                               32,
                                               UTF8PROC_DECOMPOSE,
                                               &boundary_class);
    COHORT_CHECK(count >= 0 && count <= 32, "decomposing U+{:04X} gave {}", step.code_point, count);
    points.insert(points.end(), decomposed, decomposed + count);
  }
  // utf8proc's own ordering of combining marks is quadratic in the length of a run of them.
  const auto combining = [](utf8proc_int32_t c) {
    return c < 0x300 ? 0 : utf8proc_get_property(c)->combining_class;
  };
  for (size_t begin = 0; begin < points.size();) {
    size_t end = begin;
    while (end < points.size() && combining(points[end]) != 0) ++end;
    if (end - begin > 1)
      std::stable_sort(points.begin() + begin, points.begin() + end, [&](auto a, auto b) {
        return combining(a) < combining(b);
      });
    begin = end + 1;
  }
  const auto count =
      utf8proc_normalize_utf32(points.data(),
                               static_cast<utf8proc_ssize_t>(points.size()),
                               static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  COHORT_CHECK(count >= 0, "NFC failed: {}", utf8proc_errmsg(count));
  std::string out;
  out.reserve(text.size());
  for (utf8proc_ssize_t i = 0; i < count; ++i) append_utf8(out, static_cast<uint32_t>(points[i]));
  return out;
}

bool is_white_space(uint32_t c) {
  return (c >= 0x9 && c <= 0xD) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

bool is_word_character(uint32_t c) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:  // symbols that are alphabetic all the same, and the join controls
      return (c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) ||
             (c >= 0x1F150 && c <= 0x1F169) || (c >= 0x1F170 && c <= 0x1F189) || c == 0x200C ||
             c == 0x200D;
  }
}

}  // namespace cohort::core
