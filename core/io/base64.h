// Base64 (RFC 4648, section 4): arrays of numbers inside JSON.
#pragma once
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace cohort::core {

/// With padding, in one line.
std::string base64(const void* data, size_t size);

/// The bytes; nothing when the text is no Base64 with padding, or its unused bits are not 0.
std::optional<std::string> from_base64(std::string_view text);

}  // namespace cohort::core
