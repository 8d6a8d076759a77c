#include "core/chat/text.h"

#include <string.h>
#include <utf8proc.h>

#include <algorithm>

namespace cohort::core::chat {
namespace {

size_t next_size(std::string_view text) {
  utf8proc_int32_t point = 0;
  const auto size =
      utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                       static_cast<utf8proc_ssize_t>(std::min<size_t>(text.size(), 4)),
                       &point);
  return size > 0 ? static_cast<size_t>(size) : 1;
}

void append(std::string& out, int32_t point) {
  utf8proc_uint8_t bytes[4];
  const auto size = utf8proc_encode_char(point, bytes);
  out.append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(size));
}

bool is_cased(int32_t point) {
  return point >= 0 && (utf8proc_toupper(point) != point || utf8proc_tolower(point) != point);
}

template <class Map>
std::string mapped(std::string_view text, Map map) {
  std::string out;
  for (const std::string_view character : characters(text)) {
    const int32_t point = code_point(character);
    if (point < 0)
      out += character;
    else
      append(out, map(point));
  }
  return out;
}

int32_t upper_of(int32_t point) { return utf8proc_toupper(point); }
int32_t lower_of(int32_t point) { return utf8proc_tolower(point); }

template <class Drops>
std::string_view strip_if(std::string_view text, Sides sides, Drops drops) {
  while ((sides & kLeft) && !text.empty()) {
    const size_t size = next_size(text);
    if (!drops(text.substr(0, size))) break;
    text.remove_prefix(size);
  }
  while ((sides & kRight) && !text.empty()) {
    size_t start = text.size() - 1;
    for (int back = 0; back < 3 && start > 0 && (text[start] & 0xC0) == 0x80; ++back) --start;
    if (next_size(text.substr(start)) != text.size() - start) start = text.size() - 1;
    if (!drops(text.substr(start))) break;
    text.remove_suffix(text.size() - start);
  }
  return text;
}

}  // namespace

std::vector<std::string_view> characters(std::string_view text) {
  std::vector<std::string_view> out;
  out.reserve(text.size());
  while (!text.empty()) {
    const size_t size = next_size(text);
    out.push_back(text.substr(0, size));
    text.remove_prefix(size);
  }
  return out;
}

int64_t character_count(std::string_view text) {
  int64_t count = 0;
  for (; !text.empty(); ++count) text.remove_prefix(next_size(text));
  return count;
}

int32_t code_point(std::string_view character) {
  utf8proc_int32_t point = -1;
  utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(character.data()),
                   static_cast<utf8proc_ssize_t>(character.size()),
                   &point);
  return point;
}

bool is_space(int32_t point) {
  return (point >= 0x09 && point <= 0x0D) || (point >= 0x1C && point <= 0x20) || point == 0x85 ||
         point == 0xA0 || point == 0x1680 || (point >= 0x2000 && point <= 0x200A) ||
         point == 0x2028 || point == 0x2029 || point == 0x202F || point == 0x205F ||
         point == 0x3000;
}

bool is_printable(int32_t point) {
  if (point < 0) return false;
  if (point < 0x7F) return point >= 0x20;
  switch (utf8proc_category(point)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS:
      return false;
    default:
      return true;
  }
}

std::string_view strip(std::string_view text, Sides sides) {
  return strip_if(text, sides, [](std::string_view one) { return is_space(code_point(one)); });
}

std::string_view strip(std::string_view text, std::string_view set, Sides sides) {
  std::vector<std::string_view> dropped = characters(set);
  std::sort(dropped.begin(), dropped.end());
  return strip_if(text, sides, [&dropped](std::string_view one) {
    return std::binary_search(dropped.begin(), dropped.end(), one);
  });
}

std::string upper(std::string_view text) { return mapped(text, upper_of); }
std::string lower(std::string_view text) { return mapped(text, lower_of); }

std::string title(std::string_view text) {
  bool inside = false;
  return mapped(text, [&inside](int32_t point) {
    const int32_t out = inside ? lower_of(point) : utf8proc_totitle(point);
    inside = is_cased(point);
    return out;
  });
}

std::string capitalize(std::string_view text) {
  bool first = true;
  return mapped(text, [&first](int32_t point) {
    const int32_t out = first ? utf8proc_totitle(point) : lower_of(point);
    first = false;
    return out;
  });
}

std::vector<std::string_view> split_space(std::string_view text, int64_t most) {
  std::vector<std::string_view> out;
  text = strip(text, kLeft);
  while (!text.empty()) {
    if (most >= 0 && static_cast<int64_t>(out.size()) == most) {
      out.push_back(text);
      break;
    }
    size_t end = 0;
    while (end < text.size()) {
      const size_t size = next_size(text.substr(end));
      if (is_space(code_point(text.substr(end, size)))) break;
      end += size;
    }
    out.push_back(text.substr(0, end));
    text = strip(text.substr(end), kLeft);
  }
  return out;
}

std::vector<std::string_view> split(std::string_view text,
                                    std::string_view separator,
                                    int64_t most) {
  std::vector<std::string_view> out;
  size_t start = 0;
  while (most < 0 || static_cast<int64_t>(out.size()) < most) {
    const size_t end = find(text, separator, start);
    if (end == text.npos) break;
    out.push_back(text.substr(start, end - start));
    start = end + separator.size();
  }
  out.push_back(text.substr(start));
  return out;
}

std::vector<std::string_view> rsplit(std::string_view text,
                                     std::string_view separator,
                                     int64_t most) {
  std::string reversed_text(text.rbegin(), text.rend());
  const std::string reversed_separator(separator.rbegin(), separator.rend());
  std::vector<std::string_view> out;
  size_t end = text.size();
  for (const std::string_view part : split(reversed_text, reversed_separator, most)) {
    out.push_back(text.substr(end - part.size(), part.size()));
    end -= std::min(end, part.size() + separator.size());
  }
  std::reverse(out.begin(), out.end());
  return out;
}

std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends) {
  std::vector<std::string_view> out;
  size_t start = 0;
  for (size_t at = 0; at < text.size();) {
    size_t size = next_size(text.substr(at));
    const int32_t point = code_point(text.substr(at, size));
    const bool ends = (point >= 0x0A && point <= 0x0D) || (point >= 0x1C && point <= 0x1E) ||
                      point == 0x85 || point == 0x2028 || point == 0x2029;
    if (point == '\r' && text.substr(at + 1, 1) == "\n") size = 2;
    if (ends) {
      out.push_back(text.substr(start, at - start + (keep_ends ? size : 0)));
      start = at + size;
    }
    at += size;
  }
  if (start < text.size()) out.push_back(text.substr(start));
  return out;
}

size_t find(std::string_view text, std::string_view needle, size_t from) {
  if (from > text.size()) return text.npos;
  if (needle.empty()) return from;
  const void* found = memmem(text.data() + from, text.size() - from, needle.data(), needle.size());
  return found ? static_cast<size_t>(static_cast<const char*>(found) - text.data()) : text.npos;
}

std::string replace(std::string_view text,
                    std::string_view from,
                    std::string_view to,
                    int64_t most) {
  std::string out;
  if (from.empty()) {  // between all characters, as Python does
    int64_t count = 0;
    const auto insert = [&] {
      if (most < 0 || count++ < most) out += to;
    };
    insert();
    for (const std::string_view one : characters(text)) {
      out += one;
      insert();
    }
    return out;
  }
  const auto parts = split(text, from, most);
  for (size_t i = 0; i < parts.size(); ++i) {
    if (i > 0) out += to;
    out += parts[i];
  }
  return out;
}

}  // namespace cohort::core::chat
