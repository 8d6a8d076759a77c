// Where the reference fixtures are: COHORT_PARITY_DIR, else tests/fixtures.
#pragma once
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <vector>

namespace cohort::tests {

/// Sorted entries (folders or files) of <fixtures>/<kind>. A kind that the folder of
/// COHORT_PARITY_DIR has no folder for is taken from tests/fixtures, as long as it has another one.
/// Throws when there are none: a test over no case would prove nothing.
inline std::vector<std::filesystem::path> cases(const std::string& kind) {
  namespace fs = std::filesystem;
  const fs::path own = COHORT_SOURCE_DIR "/tests/fixtures";
  const char* chosen = std::getenv("COHORT_PARITY_DIR");
  const fs::path given = chosen && *chosen ? fs::path(chosen) : own;
  const auto has_other_kind = [&] {
    for (const auto& entry : fs::directory_iterator(own))
      if (fs::is_directory(given / entry.path().filename())) return true;
    return false;
  };
  const fs::path folder =
      !fs::is_directory(given / kind) && has_other_kind() ? own / kind : given / kind;
  std::vector<fs::path> found;
  if (fs::is_directory(folder))
    for (const auto& entry : fs::directory_iterator(folder)) found.push_back(entry.path());
  if (found.empty()) throw std::runtime_error("no reference cases in " + folder.string());
  std::sort(found.begin(), found.end());
  return found;
}

}  // namespace cohort::tests
