#include "cli/recipe/state.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "core/base/error.h"
#include "core/io/file.h"
#include "core/io/strict_json.h"

namespace cohort::cli {

namespace fs = std::filesystem;

RecipeState::RecipeState(const std::string& dir, bool writes) : path_(dir + "/recipe.json") {
  std::error_code failed;
  if (writes) {
    fs::create_directories(dir, failed);
    COHORT_CHECK_INPUT(
        !failed, "{}: cannot be made ({}); choose another dir=", dir, failed.message());
    // Commands that outlive this process hold it too: a stage never runs twice at once.
    lock_ = open((dir + "/recipe.lock").c_str(), O_RDWR | O_CREAT, 0644);
    COHORT_CHECK_INPUT(
        lock_ >= 0, "{}: cannot be written ({}); choose another dir=", dir, std::strerror(errno));
    COHORT_CHECK_INPUT(flock(lock_, LOCK_EX | LOCK_NB) == 0,
                       "{}: another recipe, or a stage that one left behind, is at work there; "
                       "wait for it, or choose another dir=",
                       dir);
  }
  if (!fs::exists(path_, failed)) return;
  const auto json = core::read_strict_json(path_);
  try {
    for (const auto& [name, stage] : json.at("stages").items())
      stages_[name] = {stage.at("key"),
                       stage.at("finished"),
                       {stage.at("output"), stage.at("listing")},
                       stage.at("seconds")};
  } catch (const nlohmann::json::exception&) {
    throw InputError(path_ + ": is no state of a recipe; remove it to start anew");
  }
}

RecipeState::~RecipeState() {
  if (lock_ >= 0) close(lock_);
}

const StageState* RecipeState::find(const std::string& stage) const {
  const auto found = stages_.find(stage);
  return found == stages_.end() ? nullptr : &found->second;
}

void RecipeState::set(const std::string& stage, const StageState& state) {
  stages_[stage] = state;
  nlohmann::ordered_json json{{"stages", nlohmann::ordered_json::object()}};
  for (const auto& [name, each] : stages_)
    json["stages"][name] = {{"key", each.key},
                            {"finished", each.finished},
                            {"output", each.output.digest},
                            {"listing", each.output.listing},
                            {"seconds", each.seconds}};
  core::replace_file(path_, json.dump(2) + "\n");
}

}  // namespace cohort::cli
