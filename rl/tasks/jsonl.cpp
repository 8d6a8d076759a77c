#include <spdlog/spdlog.h>

#include <algorithm>
#include <fstream>
#include <set>

#include "core/base/error.h"
#include "core/base/rng.h"
#include "rl/permuted.h"
#include "rl/rewards/options.h"
#include "rl/rewards/tagged.h"
#include "rl/tasks/prompt_template.h"
#include "rl/tasks/task.h"

namespace cohort::rl {
namespace {

class JsonlTask final : public Task {
 public:
  JsonlTask(const TaskConfig& config, Options options)
      : seed_(config.seed), template_(config.prompt.empty() ? "{question}\n" : config.prompt, {}) {
    question_key_ = options.get("question_key", std::string("question"));
    answer_key_ = options.get("answer_key", std::string("answer"));
    const double test_share =
        options.within("test_share", options.get("test_share", 0.1), 0.0, 1.0);
    const bool one_file = options.has("path"),
               two_files = options.has("train") || options.has("test");
    COHORT_CHECK_INPUT(one_file != two_files,
                       "task jsonl: give either path, or train and test, as its options");
    if (one_file) {
      for (Problem& problem : read(options.get("path", std::string())))
        (split_of(question(problem), test_share) == Split::kTest ? test_ : train_)
            .push_back(std::move(problem));
    } else {
      if (options.has("test")) test_ = read(options.get("test", std::string()));
      if (options.has("train")) train_ = read(options.get("train", std::string()));
      drop_tested();
    }
    options.finish();
  }

  std::string name() const override { return "jsonl"; }

  std::optional<int64_t> size(Split split) const override {
    return static_cast<int64_t>((split == Split::kTest ? test_ : train_).size());
  }

  Problem problem(Split split, int64_t index) const override {
    const std::vector<Problem>& problems = split == Split::kTest ? test_ : train_;
    const int64_t count = static_cast<int64_t>(problems.size());
    COHORT_CHECK_INPUT(count > 0,
                       "task jsonl: there are no {} problems in its files",
                       split == Split::kTest ? "test" : "training");
    COHORT_CHECK(index >= 0 && (split == Split::kTrain || index < count),
                 "problem {} of {} in task jsonl",
                 index,
                 count);
    if (split == Split::kTest) return problems[index];
    const uint64_t key = core::random_bits(seed_, core::stream_of("jsonl/order"), index / count);
    return problems[permuted(index % count, count, key)];
  }

 private:
  static std::string question(const Problem& problem) {
    return problem.data.at("question").get<std::string>();
  }

  std::vector<Problem> read(const std::string& path) const {
    std::ifstream in(path, std::ios::binary);
    COHORT_CHECK_INPUT(in.is_open(), "{}: cannot be opened; is the path right?", path);
    std::vector<Problem> problems;
    std::string line;
    for (int64_t number = 1; std::getline(in, line); ++number)
      if (!trimmed(line).empty())
        problems.push_back(parsed(line, fmt::format("{}:{}", path, number)));
    COHORT_CHECK_INPUT(
        !problems.empty(), "{}: holds no problem; it needs one JSON object a line", path);
    return problems;
  }

  Problem parsed(const std::string& line, const std::string& where) const {
    nlohmann::json data = nlohmann::json::parse(line, nullptr, false);
    COHORT_CHECK_INPUT(
        data.is_object(),
        "{}: this line is no JSON object; write {{\"{}\": ..., \"{}\": ...}} on one line",
        where,
        question_key_,
        answer_key_);
    const auto text = [&](const std::string& key) {
      COHORT_CHECK_INPUT(data.contains(key) && (data[key].is_string() || data[key].is_number()),
                         "{}: {} is missing or neither text nor a number",
                         where,
                         key);
      return data[key].is_string() ? data[key].get<std::string>() : data[key].dump();
    };
    const std::string asked = text(question_key_), answer = text(answer_key_);
    COHORT_CHECK_INPUT(!trimmed(asked).empty(), "{}: {} is empty", where, question_key_);
    const size_t sign = answer.rfind("####");
    const std::string gold(
        trimmed(sign == std::string::npos ? answer : std::string_view(answer).substr(sign + 4)));
    COHORT_CHECK_INPUT(!gold.empty(), "{}: {} holds no answer", where, answer_key_);
    if (sign != std::string::npos) data["solution"] = std::string(trimmed(answer.substr(0, sign)));
    data["question"] = asked;
    data["answer"] = gold;
    Problem problem;
    problem.id = problem_id(asked);
    problem.category = data.contains("category") && data["category"].is_string()
                           ? data["category"].get<std::string>()
                           : "all";
    try {
      problem.prompt = template_.fill(data);
    } catch (const InputError& error) {
      throw InputError(fmt::format("{}: {}", where, error.what()));
    }
    problem.data = std::move(data);
    return problem;
  }

  /// No training problem may be one that is tested on.
  void drop_tested() {
    std::set<std::string> tested;
    for (const Problem& problem : test_) tested.insert(question(problem));
    const size_t dropped = std::erase_if(
        train_, [&](const Problem& problem) { return tested.count(question(problem)); });
    if (dropped > 0)
      spdlog::warn("task jsonl: {} training problems stand in the test file too and are left out",
                   dropped);
  }

  uint64_t seed_;
  PromptTemplate template_;
  std::string question_key_, answer_key_;
  std::vector<Problem> train_, test_;
};

}  // namespace

std::unique_ptr<Task> make_jsonl_task(const TaskConfig& config) {
  return std::make_unique<JsonlTask>(config, Options("task jsonl", config.options));
}

}  // namespace cohort::rl
