#include "rl/tasks/task.h"

#include <filesystem>
#include <fstream>
#include <set>

#include "core/base/error.h"
#include "rl/rewards/math/rational.h"
#include "rl/tasks/prompt_template.h"
#include "tests/catch.h"
#include "tests/rl/captured_log.h"
#include "tests/rl/completions.h"
#include "tests/scratch_folder.h"

using namespace cohort;
using Catch::Matchers::Contains;
using rl::Split;

namespace {

std::unique_ptr<rl::Task> task(const std::string& name,
                               nlohmann::json options = nlohmann::json::object(),
                               uint64_t seed = 1,
                               const std::string& prompt = "") {
  return rl::make_task({name, seed, prompt, std::move(options)});
}

std::string slip(const std::string& name, nlohmann::json options, const std::string& prompt = "") {
  try {
    task(name, std::move(options), 1, prompt);
  } catch (const InputError& error) {
    CHECK(std::string(error.what()).find('\n') == std::string::npos);
    return error.what();
  }
  return "no error";
}

/// What makes two problems the same to a reader, taken from the problem and not from its identity.
std::string meaning(const rl::Problem& problem) {
  if (!problem.data.contains("numbers")) return problem.data["question"];
  auto numbers = problem.data["numbers"].get<std::vector<int64_t>>();
  std::sort(numbers.begin(), numbers.end());
  return nlohmann::json(numbers).dump() + problem.data["target"].dump();
}

/// Whether some order of operations reaches the target with all of the numbers.
bool reachable(const std::vector<rl::math::Rational>& values, const rl::math::Rational& target) {
  rl::math::Work work;
  if (values.size() == 1) return values[0] == target;
  for (size_t i = 0; i < values.size(); ++i)
    for (size_t j = 0; j < values.size(); ++j) {
      if (i == j) continue;
      std::vector<rl::math::Rational> rest;
      for (size_t k = 0; k < values.size(); ++k)
        if (k != i && k != j) rest.push_back(values[k]);
      std::vector<rl::math::Rational> results = {add(values[i], values[j], work),
                                                 add(values[i], values[j].negated(), work),
                                                 multiply(values[i], values[j], work)};
      if (!values[j].is_zero())
        results.push_back(multiply(values[i], inverse(values[j], work), work));
      for (const auto& result : results) {
        rest.push_back(result);
        if (reachable(rest, target)) return true;
        rest.pop_back();
      }
    }
  return false;
}

}  // namespace

TEST_CASE("no test problem is ever trained on", "[rl][tasks]") {
  for (const std::string name : {"arithmetic", "countdown"}) {
    const nlohmann::json options =
        name == "countdown" ? nlohmann::json{{"max", 20}} : nlohmann::json::object();
    std::set<std::string> tested, test_ids;
    const auto first = task(name, options, 1);
    for (int64_t i = 0; i < 10'000; ++i) {
      const auto problem = first->problem(Split::kTest, i);
      tested.insert(meaning(problem));
      test_ids.insert(problem.id);
    }
    CHECK(tested.size() > 300);
    // Another seed draws other training problems, and still none of the tested.
    const auto second = task(name, options, 2);
    int64_t shared = 0, shared_ids = 0;
    for (int64_t i = 0; i < 10'000; ++i) {
      const auto problem = second->problem(Split::kTrain, i);
      shared += tested.count(meaning(problem));
      shared_ids += test_ids.count(problem.id);
    }
    CHECK(shared == 0);
    CHECK(shared_ids == 0);
  }
}

TEST_CASE("a sum is the same problem in either order", "[rl][tasks]") {
  const auto sums = task("arithmetic", {{"operations", {"+"}}, {"max", 30}, {"test_share", 0.5}});
  std::set<std::pair<int, int>> tested;
  const auto operands = [](const rl::Problem& problem) {
    int a = 0, b = 0;
    REQUIRE(std::sscanf(problem.data["question"].get<std::string>().c_str(), "%d + %d", &a, &b) ==
            2);
    return std::minmax(a, b);
  };
  for (int i = 0; i < 2000; ++i) tested.insert(operands(sums->problem(Split::kTest, i)));
  int shared = 0;
  for (int i = 0; i < 2000; ++i) shared += tested.count(operands(sums->problem(Split::kTrain, i)));
  CHECK(shared == 0);
}

TEST_CASE("a problem is a function of seed and index", "[rl][tasks]") {
  for (const char* name : {"arithmetic", "countdown"}) {
    const auto a = task(name, nullptr, 7), b = task(name, nullptr, 7),
               other = task(name, nullptr, 8);
    int differ = 0;
    for (int64_t i = 99; i >= 0; --i) {  // in any order
      const auto problem = a->problem(Split::kTrain, i);
      const auto again = b->problem(Split::kTrain, i);
      CHECK(problem.prompt == again.prompt);
      CHECK(problem.data == again.data);
      CHECK(problem.id == again.id);
      differ += problem.prompt != other->problem(Split::kTrain, i).prompt;
    }
    CHECK(differ > 80);
  }
}

TEST_CASE("arithmetic problems hold their answer", "[rl][tasks]") {
  auto rule = tests::reward("math_answer");
  for (int64_t terms : {2, 4})
    for (const char* operation : {"+", "-", "*", "/", "all"}) {
      nlohmann::json operations = {operation};
      if (operation == std::string("all")) operations = {"+", "-", "*", "/"};
      const auto problems = task(
          "arithmetic", {{"operations", operations}, {"terms", terms}, {"min", -9}, {"max", 60}});
      for (int i = 0; i < 100; ++i) {
        const auto problem = problems->problem(Split::kTrain, i);
        const std::string question = problem.data["question"];
        INFO(question << " = " << problem.data["answer"]);
        // The question, judged as an expression, equals the answer.
        CHECK(tests::score(*rule, tests::completion("\\boxed{" + question + "}", problem.data)) ==
              1);
        CHECK(problem.prompt == question + " =");
      }
    }
  const auto natural = task("arithmetic", {{"negative", false}, {"operations", {"-"}}});
  for (int i = 0; i < 200; ++i)
    CHECK(std::stoll(natural->problem(Split::kTrain, i).data["answer"].get<std::string>()) >= 0);
  CHECK(task("arithmetic", {{"operations", {"*"}}})->problem(Split::kTest, 0).category ==
        "multiplication");
}

TEST_CASE("every countdown target is within reach", "[rl][tasks]") {
  for (int64_t count : {2, 3, 4}) {
    const auto problems = task("countdown", {{"count", count}, {"max", 25}, {"target_max", 100}});
    for (int i = 0; i < 60; ++i) {
      const auto problem = problems->problem(Split::kTest, i);
      INFO(problem.data.dump());
      std::vector<rl::math::Rational> numbers;
      for (int64_t number : problem.data["numbers"]) numbers.emplace_back(number);
      CHECK(static_cast<int64_t>(numbers.size()) == count);
      const int64_t target = problem.data["target"];
      CHECK(target >= 1);
      CHECK(target <= 100);
      CHECK(reachable(numbers, rl::math::Rational(target)));
    }
  }
}

TEST_CASE("distinct problems are distinct, and too many are refused", "[rl][tasks]") {
  const auto large = task("arithmetic");
  std::set<std::string> ids;
  for (const auto& problem : rl::distinct_problems(*large, Split::kTest, 500))
    ids.insert(problem.id);
  CHECK(ids.size() == 500);
  const auto small = task("arithmetic", {{"max", 9}, {"operations", {"+"}}, {"test_share", 0.5}});
  CHECK_THROWS_AS(rl::distinct_problems(*small, Split::kTest, 500), InputError);
}

TEST_CASE("templates are filled, and wrong ones refused", "[rl][tasks]") {
  const auto filled = task("countdown", nullptr, 1, "{question} {{{numbers}}} -> {target}");
  const auto problem = filled->problem(Split::kTrain, 0);
  const auto numbers = problem.data["numbers"].get<std::vector<int64_t>>();
  CHECK(problem.prompt ==
        problem.data["question"].get<std::string>() +
            fmt::format(" {{{}, {}, {}}} -> ", numbers[0], numbers[1], numbers[2]) +
            problem.data["target"].dump());
  CHECK_THAT(slip("countdown", nullptr, "{question} {nubers}"),
             Contains("{nubers}") && Contains("{numbers}"));
  CHECK_THAT(slip("arithmetic", nullptr, "no field"), Contains("{question}"));
  CHECK_THAT(slip("arithmetic", nullptr, "{question} \\boxed{"), Contains("brace"));
  CHECK_THAT(slip("arithmetic", nullptr, "{question} }"), Contains("brace"));
  CHECK_THAT(task("arithmetic", nullptr, 1, rl::kR1Template)->problem(Split::kTrain, 0).prompt,
             Contains("<think>") && Contains("Assistant:"));
}

TEST_CASE("a slip in a task's options is one clear line", "[rl][tasks]") {
  CHECK_THAT(slip("arithmetics", nullptr), Contains("arithmetics") && Contains("countdown"));
  CHECK_THAT(slip("arithmetic", {{"maximum", 5}}), Contains("maximum") && Contains("max"));
  CHECK_THAT(slip("arithmetic", {{"min", 9}, {"max", 5}}), Contains("between"));
  CHECK_THAT(slip("arithmetic", {{"operations", {"^"}}}), Contains("^"));
  CHECK_THAT(slip("arithmetic", {{"min", 1}, {"max", 1}, {"operations", {"+"}}}),
             Contains("widen"));
  CHECK_THAT(slip("countdown", {{"count", 1}}), Contains("count"));
  CHECK_THAT(slip("jsonl", nullptr), Contains("path"));
  CHECK_THAT(slip("jsonl", {{"path", "a"}, {"train", "b"}}), Contains("path"));
}

TEST_CASE("GSM8K lines become problems", "[rl][tasks]") {
  const tests::ScratchFolder folder;
  std::string lines;
  for (int i = 0; i < 200; ++i)
    lines += nlohmann::json{{"question", fmt::format("What is {} + 1?", i)},
                            {"answer", fmt::format("{} + 1 = <<>>\n#### {}", i, i + 1)}}
                 .dump() +
             "\n";
  folder.write("all.jsonl", lines + "\n");
  const auto problems = task("jsonl", {{"path", folder / "all.jsonl"}});
  const int64_t train = *problems->size(Split::kTrain), test = *problems->size(Split::kTest);
  CHECK(train + test == 200);
  CHECK(test > 5);
  const auto first = problems->problem(Split::kTest, 0);
  CHECK(first.prompt == first.data["question"].get<std::string>() + "\n");
  CHECK(first.data["solution"].get<std::string>().find("####") == std::string::npos);
  CHECK_THAT(first.data["solution"].get<std::string>(), Contains("+ 1 ="));
  // Each round has every training problem once, each time in another order, and none of the test.
  std::vector<std::string> rounds[2];
  for (int64_t i = 0; i < 2 * train; ++i)
    rounds[i / train].push_back(problems->problem(Split::kTrain, i).id);
  CHECK(rounds[0] != rounds[1]);
  for (auto& round : rounds) {
    CHECK(std::set<std::string>(round.begin(), round.end()).size() == static_cast<size_t>(train));
    for (int64_t i = 0; i < test; ++i)
      CHECK(std::count(round.begin(), round.end(), problems->problem(Split::kTest, i).id) == 0);
  }
}

TEST_CASE("training problems that are tested on are left out", "[rl][tasks]") {
  const tests::ScratchFolder folder;
  folder.write("train.jsonl",
               R"({"question": "a", "answer": 1})"
               "\n"
               R"({"question": "b", "answer": "2"})"
               "\n");
  folder.write("test.jsonl",
               R"({"question": "b", "answer": "#### 2", "category": "easy"})"
               "\n");
  tests::CapturedLog log;
  const auto problems =
      task("jsonl", {{"train", folder / "train.jsonl"}, {"test", folder / "test.jsonl"}});
  CHECK(problems->size(Split::kTrain) == 1);
  CHECK(problems->problem(Split::kTrain, 5).data["answer"] == "1");
  CHECK(problems->problem(Split::kTest, 0).category == "easy");
  CHECK(log.warnings() == 1);
}

TEST_CASE("a bad file is named with its line", "[rl][tasks]") {
  const tests::ScratchFolder folder;
  const std::string good = R"({"question": "a", "answer": "1"})"
                           "\n";
  const auto message = [&](const std::string& text, const std::string& prompt = "") {
    folder.write("bad.jsonl", text);
    return slip("jsonl", {{"path", folder / "bad.jsonl"}}, prompt);
  };
  CHECK_THAT(message(good + "{\"question\": \n"), Contains("bad.jsonl:2") && Contains("JSON"));
  CHECK_THAT(message(good + good + "[1]\n"), Contains("bad.jsonl:3"));
  CHECK_THAT(message(good + "{\"question\": \"b\"}\n"),
             Contains("bad.jsonl:2") && Contains("answer"));
  CHECK_THAT(message(good + R"({"question": "b", "answer": "x ####"})"), Contains("bad.jsonl:2"));
  CHECK_THAT(message(good + R"({"question": " ", "answer": "1"})"), Contains("bad.jsonl:2"));
  CHECK_THAT(message(good, "{question} {hint}"), Contains("bad.jsonl:1") && Contains("hint"));
  CHECK_THAT(message("\n\n"), Contains("no problem"));
  CHECK_THAT(slip("jsonl", {{"path", folder / "none.jsonl"}}), Contains("none.jsonl"));
}
