#include "rl/tasks/few_shot.h"

#include <algorithm>
#include <set>

#include "core/base/error.h"
#include "rl/rewards/options.h"
#include "rl/tasks/draw.h"
#include "rl/tasks/prompt_template.h"

namespace cohort::rl {
namespace {

struct Example {
  std::string id, text;
};

struct FewShotOptions {
  int64_t count = 0;
  std::string file, target, separator, choice;
};

class FewShotTask final : public Task {
 public:
  FewShotTask(std::unique_ptr<Task> task,
              uint64_t seed,
              std::vector<Example> examples,
              const FewShotOptions& options)
      : task_(std::move(task)),
        seed_(seed),
        examples_(std::move(examples)),
        count_(static_cast<size_t>(options.count)),
        draws_(options.choice == "random") {}

  std::string name() const override { return task_->name(); }
  std::optional<int64_t> size(Split split) const override { return task_->size(split); }

  Problem problem(Split split, int64_t index) const override {
    Problem problem = task_->problem(split, index);
    std::vector<const Example*> order;
    for (const Example& example : examples_)
      if (example.id != problem.id) order.push_back(&example);
    COHORT_CHECK_INPUT(order.size() >= count_,
                       "task {}: few_shot asks for {} examples, there are {} besides the problem "
                       "itself; want fewer",
                       name(),
                       count_,
                       order.size());
    if (draws_) Draw(seed_, "few_shot/" + problem.id, 0, 0).shuffle(order);
    std::string before;
    for (size_t i = 0; i < count_; ++i) before += order[i]->text;
    problem.prompt = before + problem.prompt;
    return problem;
  }

 private:
  std::unique_ptr<Task> task_;
  uint64_t seed_;
  std::vector<Example> examples_;
  size_t count_;
  bool draws_;
};

bool is_few_shot_key(const std::string& key) { return key.starts_with("few_shot"); }

/// Takes the options out of the task's.
FewShotOptions take_options(TaskConfig& config) {
  nlohmann::json own = nlohmann::json::object(), others = nlohmann::json::object();
  for (const auto& [key, value] : config.options.items())
    (is_few_shot_key(key) ? own : others)[key] = value;
  config.options = others;
  Options options("task " + config.name, own);
  FewShotOptions out;
  out.count =
      options.within("few_shot", options.get("few_shot", int64_t{0}), int64_t{0}, int64_t{1000});
  out.file = options.get("few_shot_file", std::string());
  out.target = options.get("few_shot_target", std::string());
  out.separator = options.get("few_shot_separator", std::string("\n\n"));
  out.choice = options.get("few_shot_choice", std::string("first"));
  options.finish();
  COHORT_CHECK_INPUT(out.choice == "first" || out.choice == "random",
                     "task {}: few_shot_choice is \"{}\"; want first or random",
                     config.name,
                     out.choice);
  COHORT_CHECK_INPUT(out.count > 0 || own.size() == own.count("few_shot"),
                     "task {}: options of few-shot examples are given, and none is asked for; want "
                     "few_shot of at least 1",
                     config.name);
  COHORT_CHECK_INPUT(out.file.empty() || config.name == "jsonl",
                     "task {}: few_shot_file is for task jsonl; want it left out: the examples are "
                     "training problems then",
                     config.name);
  return out;
}

/// Distinct problems of a split: all of a file's, or enough to draw from.
std::vector<Problem> problems_of(const Task& task, Split split, const FewShotOptions& options) {
  const bool draws = options.choice == "random";
  const auto size = task.size(split);
  const int64_t tries = size ? *size : 50 * options.count + 1000;
  // One more than asked for: a problem that is among them is passed over.
  const int64_t wanted = !draws ? options.count + 1 : size ? *size : 4 * options.count + 64;
  std::vector<Problem> problems;
  std::set<std::string> seen;
  for (int64_t i = 0; i < tries && static_cast<int64_t>(problems.size()) < wanted; ++i) {
    Problem problem = task.problem(split, i);
    if (seen.insert(problem.id).second) problems.push_back(std::move(problem));
  }
  return problems;
}

std::vector<Problem> example_problems(const Task& task,
                                      const TaskConfig& config,
                                      const FewShotOptions& options) {
  if (options.file.empty()) return problems_of(task, Split::kTrain, options);
  // As a test file, whose order is kept.
  TaskConfig of_file{"jsonl", config.seed, config.prompt, {{"test", options.file}}};
  for (const char* key : {"question_key", "answer_key"})
    if (config.options.contains(key)) of_file.options[key] = config.options[key];
  return problems_of(*make_task(of_file), Split::kTest, options);
}

Example example_of(const Problem& problem, const FewShotOptions& options) {
  const std::string otherwise =
      problem.data.contains("solution") ? "{solution}\n#### {answer}" : "{answer}";
  const PromptTemplate target(options.target.empty() ? otherwise : options.target, {}, false);
  return {problem.id, problem.prompt + target.fill(problem.data) + options.separator};
}

}  // namespace

bool has_few_shot_options(const TaskConfig& config) {
  if (!config.options.is_object()) return false;
  for (const auto& [key, value] : config.options.items())
    if (is_few_shot_key(key)) return true;
  return false;
}

std::unique_ptr<Task> make_few_shot_task(const TaskConfig& config) {
  TaskConfig plain = config;
  const FewShotOptions options = take_options(plain);
  auto task = make_task(plain);
  if (options.count == 0) return task;
  std::vector<Example> examples;
  for (const Problem& problem : example_problems(*task, plain, options))
    examples.push_back(example_of(problem, options));
  COHORT_CHECK_INPUT(static_cast<int64_t>(examples.size()) >= options.count,
                     "task {}: few_shot asks for {} examples, {} has {}; want fewer",
                     config.name,
                     options.count,
                     options.file.empty() ? "the training split" : options.file,
                     examples.size());
  return std::make_unique<FewShotTask>(std::move(task), config.seed, std::move(examples), options);
}

}  // namespace cohort::rl
