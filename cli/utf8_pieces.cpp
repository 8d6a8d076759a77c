#include "cli/utf8_pieces.h"

#include <utf8proc.h>
#include <algorithm>

namespace cohort::cli {
namespace {

constexpr const char* kReplacement = "\xef\xbf\xbd";

/// Bytes of the character that `first` begins; 0 when it begins none.
size_t length_by(unsigned char first) {
  if (first < 0x80) return 1;
  if (first >= 0xc2 && first < 0xe0) return 2;
  if (first >= 0xe0 && first < 0xf0) return 3;
  return first >= 0xf0 && first < 0xf5 ? 4 : 0;
}

/// Whether `bytes`, which end too early, may go on to be one character.
bool may_go_on(std::string_view bytes) {
  return std::all_of(bytes.begin() + 1, bytes.end(), [](char c) { return (c & 0xc0) == 0x80; });
}

}  // namespace

std::string Utf8Pieces::push(std::string_view bytes) {
  held_ += bytes;
  std::string text;
  size_t at = 0;
  while (at < held_.size()) {
    const std::string_view rest = std::string_view(held_).substr(at);
    const size_t length = length_by(static_cast<unsigned char>(rest[0]));
    if (length > rest.size() && may_go_on(rest)) break;
    utf8proc_int32_t character = 0;
    const auto read = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(rest.data()),
                                       static_cast<utf8proc_ssize_t>(rest.size()),
                                       &character);
    if (read > 0)
      text += rest.substr(0, static_cast<size_t>(read));
    else
      text += kReplacement;
    at += read > 0 ? static_cast<size_t>(read) : 1;
  }
  held_.erase(0, at);
  return text;
}

std::string Utf8Pieces::finish() {
  const bool cut = !held_.empty();
  held_.clear();
  return cut ? kReplacement : "";
}

}  // namespace cohort::cli
