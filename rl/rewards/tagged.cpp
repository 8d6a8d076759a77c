#include "rl/rewards/tagged.h"

#include <cctype>

#include "core/base/error.h"

namespace cohort::rl {
namespace {

// A text that is no UTF-8 must not turn into an exception of the JSON library.
constexpr auto kReplace = nlohmann::json::error_handler_t::replace;

std::string shown(const nlohmann::json& json) {
  return json.dump(-1, ' ', false, kReplace).substr(0, 200);
}

}  // namespace

std::optional<std::string_view> last_tagged(std::string_view text, std::string_view tag) {
  const std::string open = "<" + std::string(tag) + ">", close = "</" + std::string(tag) + ">";
  const size_t end = text.rfind(close);
  if (end == std::string_view::npos) return std::nullopt;
  const size_t start = text.substr(0, end).rfind(open);
  if (start == std::string_view::npos) return std::nullopt;
  return text.substr(start + open.size(), end - start - open.size());
}

std::string_view trimmed(std::string_view text) {
  const auto is_space = [](char c) { return std::isspace(static_cast<unsigned char>(c)); };
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  return text;
}

std::string problem_text(const nlohmann::json& problem,
                         const std::string& key,
                         std::string_view reward) {
  COHORT_CHECK_INPUT(problem.is_object() && problem.contains(key),
                     "reward {} needs the field {} of a problem; this one has {}",
                     reward,
                     key,
                     problem.is_object() ? shown(problem) : "none");
  const nlohmann::json& value = problem[key];
  return value.is_string() ? value.get<std::string>() : value.dump(-1, ' ', false, kReplace);
}

}  // namespace cohort::rl
