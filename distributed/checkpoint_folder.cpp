#include "distributed/checkpoint_folder.h"

#include <algorithm>
#include <filesystem>
#include <optional>

#include "core/base/error.h"
#include "core/base/log.h"
#include "core/io/file.h"
#include "distributed/checkpoint.h"

namespace cohort::distributed {
namespace {

namespace fs = std::filesystem;

std::string path_of(const std::string& folder, const char* prefix, int64_t step) {
  return (fs::path(folder) / fmt::format("{}step-{:08}", prefix, step)).string();
}

/// N of "<prefix>step-N".
std::optional<int64_t> step_of(const std::string& name, const std::string& prefix) {
  const std::string start = prefix + "step-";
  constexpr size_t kMostDigits = 18;  // Fits int64.
  if (name.rfind(start, 0) != 0) return std::nullopt;
  const std::string digits = name.substr(start.size());
  if (digits.empty() || digits.size() > kMostDigits ||
      digits.find_first_not_of("0123456789") != std::string::npos)
    return std::nullopt;
  return std::stoll(digits);
}

/// Steps of the entries with this prefix, ascending.
std::vector<int64_t> steps_with(const std::string& folder, const std::string& prefix) {
  std::vector<int64_t> steps;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    const auto step = step_of(it->path().filename(), prefix);
    // A name with fewer digits is not one of ours.
    if (step &&
        path_of(folder, prefix.c_str(), *step) == (fs::path(folder) / it->path().filename()))
      steps.push_back(*step);
  }
  COHORT_CHECK(!error, "cannot read {}: {}", folder, error.message());
  std::sort(steps.begin(), steps.end());
  return steps;
}

}  // namespace

std::string step_path(const std::string& folder, int64_t step) { return path_of(folder, "", step); }
std::string temporary_path(const std::string& folder, int64_t step) {
  return path_of(folder, ".tmp-", step);
}

std::vector<CheckpointPath> checkpoints_in(const std::string& folder) {
  std::error_code error;
  if (!fs::exists(folder, error) && !error) return {};
  std::vector<CheckpointPath> found;
  try {
    for (const int64_t step : steps_with(folder, ""))
      if (fs::is_directory(step_path(folder, step), error))
        found.push_back({step, step_path(folder, step)});
  } catch (const Error& problem) {
    throw InputError(problem.what());
  }
  std::reverse(found.begin(), found.end());
  return found;
}

void remove_folder(const std::string& path) {
  std::error_code error;
  fs::remove_all(path, error);
  COHORT_CHECK(!error, "cannot remove {}: {}", path, error.message());
}

void put_in_place(const std::string& folder, int64_t step) {
  const std::string final_path = step_path(folder, step);
  const std::string old_path = path_of(folder, ".old-", step);
  const bool replaces = fs::exists(final_path);
  if (replaces) core::rename_path(final_path, old_path);
  try {
    core::rename_path(temporary_path(folder, step), final_path);
  } catch (const Error&) {
    if (replaces) core::rename_path(old_path, final_path);
    throw;
  }
  core::fsync_folder(folder);
  if (replaces) try {
      remove_folder(old_path);
    } catch (const Error& error) {
      spdlog::warn("a replaced checkpoint stays: {}", error.what());  // The new one stands.
    }
}

void delete_checkpoint(const std::string& folder, int64_t step) {
  const std::string doomed = path_of(folder, ".del-", step);
  core::rename_path(step_path(folder, step), doomed);
  remove_folder(doomed);
}

void restore_replaced(const std::string& folder) {
  for (const int64_t step : steps_with(folder, ".old-"))
    if (!fs::exists(step_path(folder, step)))
      core::rename_path(path_of(folder, ".old-", step), step_path(folder, step));
}

void clear_remains(const std::string& folder) {
  restore_replaced(folder);
  for (const char* prefix : {".old-", ".tmp-", ".del-"})
    for (const int64_t step : steps_with(folder, prefix))
      remove_folder(path_of(folder, prefix, step));
}

}  // namespace cohort::distributed
