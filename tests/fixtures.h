// Where the reference fixtures are: COHORT_PARITY_DIR, else tests/fixtures.
#pragma once
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <vector>

namespace cohort::tests {

/// Sorted entries (folders or files) of <fixtures>/<kind>. Throws when there are none: a test over
/// no case would prove nothing.
inline std::vector<std::filesystem::path> cases(const std::string& kind) {
  const char* chosen = std::getenv("COHORT_PARITY_DIR");
  const std::filesystem::path folder =
      std::filesystem::path(chosen && *chosen ? chosen : COHORT_SOURCE_DIR "/tests/fixtures") /
      kind;
  std::vector<std::filesystem::path> found;
  if (std::filesystem::is_directory(folder))
    for (const auto& entry : std::filesystem::directory_iterator(folder))
      found.push_back(entry.path());
  if (found.empty()) throw std::runtime_error("no reference cases in " + folder.string());
  std::sort(found.begin(), found.end());
  return found;
}

}  // namespace cohort::tests
