// What the generated tasks share: drawing until the problem is of the wanted split.
#pragma once
#include <optional>
#include <string>
#include <utility>

#include "core/base/error.h"
#include "rl/rewards/options.h"
#include "rl/tasks/draw.h"
#include "rl/tasks/prompt_template.h"
#include "rl/tasks/task.h"

namespace cohort::rl {

/// A problem before it has a prompt. `content` is what its split and identity hang on: writings of
/// the same problem (2 + 3 and 3 + 2) share it.
struct Sketch {
  std::string content;
  std::string category;
  nlohmann::json data;
};

class GeneratedTask : public Task {
 public:
  Problem problem(Split split, int64_t index) const final {
    COHORT_CHECK(index >= 0, "problem {} of task {}", index, name());
    const std::string stream = name() + (split == Split::kTest ? "/test" : "/train");
    for (int64_t attempt = 0; attempt < kAttempts; ++attempt) {
      Draw draw(seed_, stream, index, attempt);
      std::optional<Sketch> sketch = sketched(draw);
      if (!sketch || split_of(sketch->content, test_share_) != split) continue;
      Problem problem;
      problem.id = problem_id(sketch->content);
      problem.category = std::move(sketch->category);
      problem.data = std::move(sketch->data);
      problem.prompt = template_.fill(problem.data);
      return problem;
    }
    throw InputError(fmt::format(
        "task {}: no {} problem in {} draws; widen the ranges of its operands or change test_share",
        name(),
        split == Split::kTest ? "test" : "training",
        kAttempts));
  }

 protected:
  GeneratedTask(const TaskConfig& config,
                Options& options,
                const char* own_template,
                const std::vector<std::string>& fields)
      : seed_(config.seed),
        test_share_(options.within("test_share", options.get("test_share", 0.1), 0.0, 1.0)),
        template_(config.prompt.empty() ? own_template : config.prompt, fields) {}

  /// Finds a range without problems now and not in the middle of a run. For the end of a
  /// constructor.
  void check_ranges() const {
    if (test_share_ < 1) problem(Split::kTrain, 0);
    if (test_share_ > 0) problem(Split::kTest, 0);
  }

  /// One draw; nothing when it led to no allowed problem.
  virtual std::optional<Sketch> sketched(Draw& draw) const = 0;

 private:
  static constexpr int64_t kAttempts = 20000;

  uint64_t seed_;
  double test_share_;
  PromptTemplate template_;
};

/// The operations of a task's options, each one of `+ - * /`.
inline std::vector<char> operations_of(Options& options, std::vector<std::string> otherwise) {
  std::vector<char> operations;
  for (const std::string& written : options.get("operations", std::move(otherwise))) {
    COHORT_CHECK_INPUT(written == "+" || written == "-" || written == "*" || written == "/",
                       "{}: there is no operation \"{}\"; choose from + - * /",
                       options.owner(),
                       written);
    operations.push_back(written[0]);
  }
  COHORT_CHECK_INPUT(!operations.empty(), "{}: operations is empty", options.owner());
  return operations;
}

}  // namespace cohort::rl
