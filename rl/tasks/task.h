// Tasks: where problems come from.
//
// A generated problem belongs to the test split or to the training split by a hash of its content
// alone, so that no test problem is ever trained on, whatever the seed and however many are drawn.
// Problem i of a split is a function of (seed, i): ranks and resumed runs agree on it without
// talking.
//
// arithmetic  "37 + 48": operands, operations
//   min, max        0, 99: operands
//   operations      ["+", "-", "*"]; also "/" (only where the quotient is whole)
//   terms           2: operands of a problem
//   negative        true: whether the result may be negative
// countdown   reach a target from given numbers; every target is reachable
//   count           3: numbers of a problem
//   min, max        1, 99: numbers
//   target_min, target_max   1, 999
//   operations      ["+", "-", "*", "/"]
//   use             "all" or "any": whether every number must be used (see the countdown reward)
// jsonl       problems from files, one JSON object a line
//   path            split by hash, or train and test: a file for each; a training problem whose
//   question
//                   stands in the test file is left out
//   question_key, answer_key   "question", "answer"
//                   Of an answer with a line "#### 42" (GSM8K) the part behind the sign is the
//                   gold, the rest goes to data.solution.
// all: worked examples before each question, see few_shot.h
// all generated ones, and jsonl with path:
//   test_share      0.1: share of the problems that is kept for testing
#pragma once
#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace cohort::rl {

struct Problem {
  std::string id;        // the same for the same content, in every run
  std::string prompt;    // the question in its template
  std::string category;  // what evaluations are broken down by
  nlohmann::json data;   // what rewards read: question, answer, numbers, target, ...
};

enum class Split { kTrain, kTest };

/// `rl.task`.
struct TaskConfig {
  std::string name;  // arithmetic, countdown, jsonl
  uint64_t seed = 1;
  std::string prompt;  // a template (prompt_template.h); empty for the task's own
  nlohmann::json options = nlohmann::json::object();
};

/// Thread-safe: nothing changes after construction.
class Task {
 public:
  virtual ~Task() = default;
  virtual std::string name() const = 0;

  /// Distinct problems of a split, where they are counted; generated tasks have no count.
  virtual std::optional<int64_t> size(Split split) const { return std::nullopt; }

  /// Problem `index` >= 0. The training split goes on for ever: generated problems are drawn anew
  /// (and may recur), those of a file come in a new order each time round. The test split of a file
  /// keeps the file's order and has size() problems.
  virtual Problem problem(Split split, int64_t index) const = 0;
};

/// Throws InputError for an unknown name or option, for a range that holds no problem of a split,
/// and for a bad file (with its name and line).
std::unique_ptr<Task> make_task(const TaskConfig& config);

/// The first `count` different problems of a split, for evaluation. InputError when there are not
/// so many.
std::vector<Problem> distinct_problems(const Task& task, Split split, int64_t count);

/// The split of a problem with this content.
Split split_of(std::string_view content, double test_share);

/// 16 hexadecimal digits of a hash of the content.
std::string problem_id(std::string_view content);

std::unique_ptr<Task> make_arithmetic_task(const TaskConfig& config);
std::unique_ptr<Task> make_countdown_task(const TaskConfig& config);
std::unique_ptr<Task> make_jsonl_task(const TaskConfig& config);

}  // namespace cohort::rl
