// JSON from files that others made: what a parser may read in two ways, or choke on, is refused.
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace cohort::core {

/// Throws InputError "PATH:LINE: ..." for text that is not JSON, nests deeper than 128 levels (as
/// the reference allows), holds a NUL byte, a key twice in one object, or a number that no double
/// holds.
nlohmann::json parse_strict_json(std::string_view text, const std::string& path);

/// The same for a file; InputError too when it cannot be read.
nlohmann::json read_strict_json(const std::string& path);

}  // namespace cohort::core
