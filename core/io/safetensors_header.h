// The header of a safetensors file: from bytes to checked entries, and back.
#pragma once
#include "core/io/safetensors.h"

#include <map>
#include <string>
#include <string_view>

namespace cohort::core {

struct SafetensorsHeader {
  std::map<std::string, SafetensorsEntry> entries;
  std::map<std::string, std::string> metadata;
  size_t data_start = 0;  ///< First byte of the data section in the file.
};

/// `file` is the whole file. Throws InputError that begins with `path`.
SafetensorsHeader parse_safetensors_header(std::string_view file, const std::string& path);

/// Length field, JSON and spaces up to a multiple of 8. Throws Error for a tensor that cannot be
/// written (a name twice, ...).
std::string format_safetensors_header(const std::vector<SafetensorsSpec>& tensors,
                                      const std::map<std::string, std::string>& metadata,
                                      const std::string& path);

/// `name` as a JSON string, shortened: safe to stand in a one-line message whatever it holds.
std::string in_quotes(std::string_view name);

}  // namespace cohort::core
