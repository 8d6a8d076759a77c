#include "core/tokenizer/byte_level.h"

#include "core/tokenizer/unicode.h"

namespace cohort::core {
namespace {

constexpr uint32_t kCharacterEnd = 256 + 68;  // 68 bytes are not printable in Latin-1

bool is_printable(uint32_t byte) {
  return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

std::array<int, kCharacterEnd> invert() {
  std::array<int, kCharacterEnd> bytes;
  bytes.fill(-1);
  for (int byte = 0; byte < 256; ++byte) bytes[byte_characters()[byte]] = byte;
  return bytes;
}

}  // namespace

const std::array<uint32_t, 256>& byte_characters() {
  static const std::array<uint32_t, 256> characters = [] {
    std::array<uint32_t, 256> made;
    uint32_t next = 256;
    for (uint32_t byte = 0; byte < 256; ++byte) made[byte] = is_printable(byte) ? byte : next++;
    return made;
  }();
  return characters;
}

std::string to_byte_level(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size() * 2);
  for (char byte : bytes) append_utf8(text, byte_characters()[static_cast<unsigned char>(byte)]);
  return text;
}

std::optional<std::string> from_byte_level(std::string_view text) {
  static const std::array<int, kCharacterEnd> bytes = invert();
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const Utf8Step step = utf8_at(text, at);
    if (!step.valid || step.code_point >= kCharacterEnd || bytes[step.code_point] < 0)
      return std::nullopt;
    out.push_back(static_cast<char>(bytes[step.code_point]));
    at += step.length;
  }
  return out;
}

}  // namespace cohort::core
