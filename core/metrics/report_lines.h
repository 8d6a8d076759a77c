// How the report reads a .jsonl file of a run: whatever stands in it, the report goes on.
#pragma once
#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

namespace cohort::core {

/// Calls visit(object, offset) for each line of a .jsonl file that is an object, with the line's
/// place in bytes; returns how many lines are none. A torn last line, of a run that is being
/// written or was killed, is passed over.
template <class Visit>
int64_t each_line(const std::filesystem::path& path, Visit visit) {
  int64_t broken = 0, offset = 0;
  std::ifstream in(path, std::ios::binary);
  for (std::string line; std::getline(in, line);) {
    const auto object = nlohmann::ordered_json::parse(line, nullptr, false);
    if (object.is_object())
      visit(object, offset);
    else if (!in.eof() && !line.empty())
      ++broken;
    offset += static_cast<int64_t>(line.size()) + 1;
  }
  return broken;
}

inline std::optional<double> finite(const nlohmann::ordered_json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_number()) return {};
  const double value = found->get<double>();
  return std::isfinite(value) ? std::optional(value) : std::nullopt;
}

/// The step of a line; nothing when it is no whole number that a run can get to.
inline std::optional<int64_t> step_of(const nlohmann::ordered_json& line) {
  const auto step = finite(line, "step");
  if (!step || *step < 0 || *step > 9e15) return {};
  return static_cast<int64_t>(*step);
}

}  // namespace cohort::core
