#include "rl/tasks/task.h"

#include <set>

#include "core/base/error.h"
#include "core/base/rng.h"
#include "rl/tasks/few_shot.h"

namespace cohort::rl {

std::unique_ptr<Task> make_task(const TaskConfig& config) {
  if (has_few_shot_options(config)) return make_few_shot_task(config);
  if (config.name == "arithmetic") return make_arithmetic_task(config);
  if (config.name == "countdown") return make_countdown_task(config);
  if (config.name == "jsonl") return make_jsonl_task(config);
  throw InputError(
      fmt::format("no task is called \"{}\"; there are arithmetic, countdown, jsonl", config.name));
}

std::vector<Problem> distinct_problems(const Task& task, Split split, int64_t count) {
  const auto size = task.size(split);
  // A generated task repeats itself: give up where fresh problems have become rare.
  const int64_t tries = size ? *size : 50 * count + 1000;
  std::vector<Problem> problems;
  std::set<std::string> seen;
  for (int64_t i = 0; i < tries && static_cast<int64_t>(problems.size()) < count; ++i) {
    Problem problem = task.problem(split, i);
    if (seen.insert(problem.id).second) problems.push_back(std::move(problem));
  }
  COHORT_CHECK_INPUT(static_cast<int64_t>(problems.size()) == count,
                     "task {} has {} different {} problems; {} were asked for",
                     task.name(),
                     problems.size(),
                     split == Split::kTest ? "test" : "training",
                     count);
  return problems;
}

Split split_of(std::string_view content, double test_share) {
  const double place = static_cast<double>(core::mix64(core::stream_of(content)) >> 11) * 0x1.0p-53;
  return place < test_share ? Split::kTest : Split::kTrain;
}

std::string problem_id(std::string_view content) {
  return fmt::format("{:016x}", core::mix64(core::stream_of(content) ^ 0x1D));
}

}  // namespace cohort::rl
