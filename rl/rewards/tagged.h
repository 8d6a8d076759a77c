// <tag>...</tag> in a model's text.
#pragma once
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

namespace cohort::rl {

/// What stands in the last complete pair of the tag.
std::optional<std::string_view> last_tagged(std::string_view text, std::string_view tag);

/// Without white space at the ends.
std::string_view trimmed(std::string_view text);

/// A field of a problem as text (a number as it is written in JSON). InputError naming the reward
/// and the fields there are when it is missing.
std::string problem_text(const nlohmann::json& problem,
                         const std::string& key,
                         std::string_view reward);

}  // namespace cohort::rl
