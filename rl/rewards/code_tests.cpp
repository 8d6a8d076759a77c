#include <spdlog/spdlog.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <optional>
#include <thread>

#include "rl/rewards/builtin.h"
#include "rl/rewards/options.h"
#include "rl/rewards/sandbox.h"
#include "rl/rewards/tagged.h"

namespace cohort::rl {
namespace {

struct CodeTest {
  std::string input, output;
};

/// The last ```-fenced block, without the language named on its first line.
std::optional<std::string_view> last_block(std::string_view text) {
  std::optional<std::string_view> found;
  for (size_t open = text.find("```"); open != std::string_view::npos;) {
    const size_t line = text.find('\n', open);
    if (line == std::string_view::npos) break;
    const size_t close = text.find("```", line);
    if (close == std::string_view::npos) break;
    found = text.substr(line + 1, close - line - 1);
    open = text.find("```", close + 3);
  }
  return found;
}

/// Lines without the white space at their ends, and no empty lines at the end.
std::string comparable(std::string_view output) {
  std::string result;
  for (size_t start = 0; start <= output.size();) {
    const size_t end = std::min(output.find('\n', start), output.size());
    std::string_view line = output.substr(start, end - start);
    while (!line.empty() && std::string_view(" \t\r").find(line.back()) != std::string_view::npos)
      line.remove_suffix(1);
    result.append(line);
    result += '\n';
    start = end + 1;
  }
  while (!result.empty() && result.back() == '\n') result.pop_back();
  return result;
}

std::vector<CodeTest> tests_of(const nlohmann::json& problem, int64_t max_tests) {
  const bool listed =
      problem.is_object() && problem.contains("tests") && problem["tests"].is_array();
  COHORT_CHECK_INPUT(listed && !problem["tests"].empty(),
                     "reward code_tests needs a problem with a list of tests");
  std::vector<CodeTest> tests;
  for (const auto& test : problem["tests"]) {
    if (max_tests > 0 && static_cast<int64_t>(tests.size()) == max_tests) break;
    COHORT_CHECK_INPUT(test.is_object() && test.contains("output"),
                       "reward code_tests: a test is {{input, output}}, this one has no output");
    tests.push_back({test.contains("input") ? problem_text(test, "input", "code_tests") : "",
                     problem_text(test, "output", "code_tests")});
  }
  return tests;
}

class CodeTestsReward final : public Reward {
 public:
  explicit CodeTestsReward(const nlohmann::json& json) {
    Options options("reward code_tests", json);
    command_ = options.get("command", std::vector<std::string>{"python3", "-I", "{file}"});
    file_ = options.get("file", std::string("main.py"));
    credit_ = options.get("credit", std::string("all"));
    max_tests_ =
        options.within<int64_t>("max_tests", options.get<int64_t>("max_tests", 0), 0, 1'000'000);
    limits_.seconds = options.within("seconds", options.get("seconds", 5.0), 0.01, 3600.0);
    const auto size = [&](const char* key, int64_t otherwise, int64_t unit) {
      return unit * options.within<int64_t>(
                        key, options.get<int64_t>(key, otherwise), 1, int64_t{1} << 30);
    };
    limits_.memory_bytes = size("memory_mb", 512, 1 << 20);
    limits_.file_bytes = size("file_mb", 8, 1 << 20);
    limits_.processes = size("processes", 32, 1);
    output_bytes_ = size("output_kb", 256, 1 << 10);
    workers_ = options.within<int64_t>("workers", options.get<int64_t>("workers", 2), 1, 256);
    options.finish();
    COHORT_CHECK_INPUT(credit_ == "all" || credit_ == "share",
                       "reward code_tests: credit is {}; it must be all or share",
                       credit_);
    COHORT_CHECK_INPUT(!command_.empty() && !find_program(command_[0], kSafePath).empty(),
                       "reward code_tests: there is no program {} in {}",
                       command_.empty() ? "" : command_[0],
                       kSafePath);
    COHORT_CHECK_INPUT(!file_.empty() && file_.find('/') == std::string::npos,
                       "reward code_tests: file is \"{}\"; it must be a name without a folder",
                       file_);
  }

  std::string name() const override { return "code_tests"; }
  int64_t failures() const override { return failures_; }
  std::string first_failure() const override { return first_failure_; }

  std::vector<double> score(std::span<const Completion> batch) override {
    std::vector<std::vector<CodeTest>> tests;
    for (const Completion& completion : batch)
      tests.push_back(tests_of(completion.problem, max_tests_));
    std::vector<double> values(batch.size(), 0.0);
    std::atomic<size_t> next{0};
    const auto work = [&] {
      for (size_t i; (i = next++) < batch.size();) values[i] = scored(batch[i].text, tests[i]);
    };
    std::vector<std::jthread> threads;
    for (int64_t i = 1; i < std::min<int64_t>(workers_, batch.size()); ++i)
      threads.emplace_back(work);
    work();
    threads.clear();  // joins
    return values;
  }

 private:
  /// Never throws: this runs on a thread of its own.
  double scored(const std::string& text, const std::vector<CodeTest>& tests) {
    const std::string_view inside = last_tagged(text, "answer").value_or(text);
    const auto program = last_block(inside);
    if (!program) return 0;
    int64_t passed = 0;
    try {
      for (const CodeTest& test : tests) {
        if (passes(std::string(*program), test))
          ++passed;
        else if (credit_ == "all")
          return 0;
      }
    } catch (const std::exception& error) {
      count_failure(error.what());
      return 0;
    }
    return static_cast<double>(passed) / static_cast<double>(tests.size());
  }

  bool passes(const std::string& program, const CodeTest& test) {
    const ProgramFolder folder;
    const std::string path = folder.write(file_, program);
    std::vector<std::string> command = command_;
    for (std::string& part : command)
      if (const size_t at = part.find("{file}"); at != std::string::npos) part.replace(at, 6, path);
    const Outcome outcome = run_limited(command, folder, test.input, limits_, output_bytes_);
    if (outcome.end == Outcome::kNotStarted) count_failure(outcome.output);
    if (!outcome.network_closed) {
      static std::once_flag once;
      std::call_once(once, [] {
        spdlog::warn(
            "code_tests: this system allows no network namespaces, so the programs that it "
            "runs can reach the network; run inside a container without one");
      });
    }
    return outcome.end == Outcome::kExited && outcome.status == 0 &&
           comparable(outcome.output) == comparable(test.output);
  }

  void count_failure(const std::string& reason) {
    if (failures_++ == 0) first_failure_ = "reward code_tests: " + reason;
  }

  std::vector<std::string> command_;
  std::string file_, credit_;
  int64_t max_tests_, output_bytes_, workers_;
  Limits limits_;
  std::atomic<int64_t> failures_{0};
  std::string first_failure_;  // of the thread that counted the first
};

}  // namespace

std::unique_ptr<Reward> make_code_tests_reward(const nlohmann::json& options) {
  return std::make_unique<CodeTestsReward>(options);
}

}  // namespace cohort::rl
