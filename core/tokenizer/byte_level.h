// GPT-2's one-to-one map between bytes and printable characters, in which tokenizer.json writes its
// tokens: the space is 'Ġ', a line feed 'Ċ', letters are themselves.
#pragma once
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace cohort::core {

/// The character of each byte.
const std::array<uint32_t, 256>& byte_characters();
/// The bytes written as their characters, in UTF-8.
std::string to_byte_level(std::string_view bytes);
/// The bytes behind such a text; nothing when a character stands for no byte.
std::optional<std::string> from_byte_level(std::string_view text);

}  // namespace cohort::core
