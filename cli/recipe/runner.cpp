#include "cli/recipe/runner.h"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "cli/recipe/child.h"
#include "cli/recipe/words.h"
#include "core/base/error.h"
#include "rl/rewards/process.h"

namespace cohort::cli {
namespace {

namespace fs = std::filesystem;

/// The words to start: this binary for `cohort`, under the launcher when there are several ranks.
std::vector<std::string> to_start(const Recipe& recipe, const Stage& stage) {
  std::vector<std::string> words;
  if (stage.ranks > 1)
    for (std::string word : recipe.launch) {
      const std::string place = "${ranks}";
      for (size_t at; (at = word.find(place)) != std::string::npos;)
        word.replace(at, place.size(), std::to_string(stage.ranks));
      words.push_back(word);
    }
  for (const std::string& word : stage.command) words.push_back(word);
  auto& first = words[words.size() - stage.command.size()];
  if (first == "cohort") first = fs::read_symlink("/proc/self/exe").string();
  return words;
}

/// Of a training: whether it reached its last step, as its own events tell. A training that was
/// told to stop saves and ends with 0. True for all other outputs.
bool reached_its_end(const std::string& out) {
  std::ifstream events(out + "/events.jsonl");
  int64_t total = -1;
  for (std::string line; std::getline(events, line);) {
    const auto event = nlohmann::json::parse(line, nullptr, false);
    if (event.is_object() && event.value("event", "") == "started")
      total = event.value("total_steps", int64_t{-1});
  }
  if (total < 0) return true;
  std::error_code none;
  for (const auto& entry : fs::directory_iterator(out + "/checkpoints", none)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("step-") && std::atoll(name.c_str() + 5) >= total) return true;
  }
  return false;
}

/// Moves what stands at `out` to dir/replaced/NAME-N.
void move_aside(const Recipe& recipe, const Stage& stage) {
  const fs::path folder = fs::path(recipe.dir) / "replaced";
  fs::create_directories(folder);
  fs::path place;
  for (int number = 1; place.empty() || fs::exists(place); ++number)
    place = folder / fmt::format("{}-{}", stage.name, number);
  fs::rename(stage.out, place);
  std::printf(
      "%s, not of these inputs or not finished: moved to %s\n", stage.out.c_str(), place.c_str());
}

void check_program(const std::string& program, const std::string& place) {
  const char* path = std::getenv("PATH");
  COHORT_CHECK_INPUT(!rl::find_program(program, path ? path : rl::kSafePath).empty(),
                     "{}: {} cannot be run; want a program that is on PATH",
                     place,
                     program);
}

/// What a command said last, without its own name in front.
std::string said(const Ended& ended) {
  const std::string own = "cohort: ";
  return ended.last_line.starts_with(own) ? ended.last_line.substr(own.size()) : ended.last_line;
}

void say(const Recipe& recipe, size_t index, const std::string& what) {
  std::printf("== [%zu/%zu] %s: %s\n",
              index + 1,
              recipe.stages.size(),
              recipe.stages[index].name.c_str(),
              what.c_str());
  std::fflush(stdout);
}

/// Of a command that ended without being asked to, and did not finish its stage.
[[noreturn]] void fail(const Recipe& recipe,
                       const Stage& stage,
                       const Ended& ended,
                       const std::string& log) {
  const std::string place = fmt::format("{}: stage {}", recipe.file, stage.name);
  if (ended.status == 2)
    throw InputError(fmt::format("{}: {} (all of it: {})", place, said(ended), log));
  COHORT_CHECK(ended.status == 0,
               "{} ended with {}: {} (all of it: {})",
               place,
               ended.status,
               said(ended),
               log);
  COHORT_CHECK(!identify(stage.out).digest.empty(),
               "{} ended well, but there is no {} (see {})",
               place,
               stage.out,
               log);
  throw Error(place + " was stopped before its last step; the same command goes on with it");
}

/// False when it was asked to stop before the stage's end.
bool run_stage(const Recipe& recipe, RecipeState& state, size_t index, const std::string& key) {
  const Stage& stage = recipe.stages[index];
  const auto words = to_start(recipe, stage);
  check_program(words[0], fmt::format("{}: stage {}", recipe.file, stage.name));
  const StageState* earlier = state.find(stage.name);
  const bool goes_on = earlier && !earlier->finished && earlier->key == key && stage.resumes;
  if (fs::exists(stage.out) && !goes_on) move_aside(recipe, stage);
  StageState now{key, false, {}, goes_on ? earlier->seconds : 0};
  state.set(stage.name, now);
  fs::create_directories(fs::path(stage.out).parent_path());
  fs::create_directories(recipe.dir + "/logs");
  say(recipe, index, shell_line(words));
  const std::string log = fmt::format("{}/logs/{}.log", recipe.dir, stage.name);

  const auto start = std::chrono::steady_clock::now();
  const Ended ended = run_command(words, log);
  now.seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  now.output = identify(stage.out);
  now.finished = ended.status == 0 && !now.output.digest.empty() && reached_its_end(stage.out);
  state.set(stage.name, now);
  if (!now.finished && !ended.stopped) fail(recipe, stage, ended, log);
  return now.finished;
}

Standing standing_of(const Recipe& recipe,
                     const Stage& stage,
                     const RecipeState& state,
                     const std::map<std::string, Identity>& outputs,
                     std::string& key) {
  key = key_of(recipe, stage, outputs);
  const StageState* earlier = state.find(stage.name);
  if (!earlier) return Standing::kNew;
  if (earlier->key != key) return Standing::kInputsChanged;
  if (!earlier->finished) return Standing::kUnfinished;
  if (identify(stage.out, earlier->output).digest != earlier->output.digest)
    return Standing::kOutputChanged;
  return Standing::kDone;
}

}  // namespace

const char* standing_text(Standing standing) {
  switch (standing) {
    case Standing::kDone:
      return "done";
    case Standing::kNew:
      return "to do";
    case Standing::kUnfinished:
      return "was interrupted";
    case Standing::kInputsChanged:
      return "to do again: its inputs changed";
    case Standing::kOutputChanged:
      return "to do again: its output is not what it made";
  }
  return "";
}

std::vector<Standing> standings(const Recipe& recipe, const RecipeState& state) {
  std::vector<Standing> all;
  std::map<std::string, Identity> outputs;
  for (const Stage& stage : recipe.stages) {
    bool ready = true;
    for (const size_t before : stage.after) ready = ready && all[before] == Standing::kDone;
    const StageState* earlier = state.find(stage.name);
    std::string key;
    if (ready)
      all.push_back(standing_of(recipe, stage, state, outputs, key));
    else
      all.push_back(!earlier            ? Standing::kNew
                    : earlier->finished ? Standing::kInputsChanged
                                        : Standing::kUnfinished);
    if (all.back() == Standing::kDone) outputs[stage.name] = earlier->output;
  }
  return all;
}

bool run_stages(const Recipe& recipe, RecipeState& state, size_t last) {
  std::map<std::string, Identity> outputs;
  for (size_t index = 0; index <= last; ++index) {
    const Stage& stage = recipe.stages[index];
    std::string key;
    if (standing_of(recipe, stage, state, outputs, key) == Standing::kDone)
      say(recipe, index, "done already");
    else if (!run_stage(recipe, state, index, key))
      return false;
    outputs[stage.name] = state.find(stage.name)->output;
  }
  return true;
}

}  // namespace cohort::cli
