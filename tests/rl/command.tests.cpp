#include <filesystem>
#include <fstream>
#include <set>

#include "tests/catch.h"
#include "tests/rl/captured_log.h"
#include "tests/rl/completions.h"

using namespace cohort;

namespace {

std::vector<rl::Completion> batch_of(int count) {
  std::vector<rl::Completion> batch;
  for (int i = 0; i < count; ++i) batch.push_back(tests::completion(std::string(i + 1, 'x')));
  return batch;
}

std::unique_ptr<rl::Reward> command(const std::string& script,
                                    nlohmann::json more = nlohmann::json::object()) {
  nlohmann::json options = {{"command", script}, {"seconds", 20}};
  options.update(more);
  return tests::reward("command", options);
}

}  // namespace

TEST_CASE("a command answers a line for a line and stays up", "[rl][rewards]") {
  tests::CapturedLog log;
  // Each answer says which process gave it and how many lines it has seen.
  auto rule =
      command("n=0; while read -r line; do n=$((n+1)); echo \"{\\\"reward\\\": $n.5}\"; done");
  CHECK(rule->score(batch_of(3)) == std::vector<double>{1.5, 2.5, 3.5});
  CHECK(rule->score(batch_of(2)) == std::vector<double>{4.5, 5.5});
  CHECK(rule->score({}).empty());
  CHECK(rule->failures() == 0);
  CHECK(log.text().empty());
}

TEST_CASE("a command gets the whole sample as JSON", "[rl][rewards]") {
  const auto file =
      std::filesystem::temp_directory_path() / ("cohort-command-" + std::to_string(::getpid()));
  auto rule = command("cat > " + file.string() + "; echo 1", {{"keep", false}});
  auto sample = tests::completion("broken \xe2\x82 text\nline 2", {{"answer", "7"}});
  sample.prompt = "p";
  sample.tokens = 5;
  sample.truncated = true;
  CHECK(tests::score(*rule, sample) == 1);
  std::ifstream in(file);
  const auto seen = nlohmann::json::parse(in);
  std::filesystem::remove(file);
  CHECK(seen["prompt"] == "p");
  CHECK(seen["completion"] == "broken \xef\xbf\xbd text\nline 2");
  CHECK(seen["tokens"] == 5);
  CHECK(seen["truncated"] == true);
  CHECK(seen["problem"]["answer"] == "7");
  CHECK(seen["index"] == 0);
  CHECK(seen["count"] == 1);
}

TEST_CASE("a batch larger than any pipe goes through", "[rl][rewards]") {
  auto rule = command("while read -r line; do echo ${#line}; done");
  std::vector<rl::Completion> batch(40, tests::completion(std::string(20'000, 'x')));
  for (double value : rule->score(batch)) CHECK(value > 20'000);
  // One that reads all before it answers.
  auto late = command("cat > /dev/null; yes 1 | head -n 40", {{"keep", false}});
  CHECK(late->score(batch) == std::vector<double>(40, 1.0));
}

TEST_CASE("a command that fails costs its samples and not the run", "[rl][rewards]") {
  struct Case {
    std::string what, script;
    bool keep;
    std::vector<double> values;
    std::string said;
  };
  const std::vector<Case> cases = {
      {"exit 1 at once", "exit 1", true, {0, 0, 0}, "status 1"},
      {"exit 1 at once", "exit 1", false, {0, 0, 0}, "status 1"},
      {"exit 1 after all answers",
       "cat >/dev/null; echo 1; echo 1; echo 1; exit 1",
       false,
       {0, 0, 0},
       "status 1"},
      {"dies half way", "read -r l; echo 5; kill -9 $$", true, {5, 0, 0}, "status 137"},
      {"garbage", "while read -r l; do echo hello; done", true, {0, 0, 0}, "hello"},
      {"garbage once",
       "while read -r l; do [ -z \"$n\" ] && echo start; n=1; echo 1; done",
       true,
       {0, 0, 0},
       ""},
      {"no finite number", "while read -r l; do echo 1e999; done", true, {0, 0, 0}, "1e999"},
      {"another type",
       "while read -r l; do echo '{\"reward\": \"1\"}'; done",
       true,
       {0, 0, 0},
       "reward"},
      {"silence", "while :; do sleep 1; done", true, {0, 0, 0}, "in time"},
      {"silence", "exec sleep 1000", false, {0, 0, 0}, "in time"},
      {"silence after one", "read -r l; echo 5; exec sleep 1000", true, {5, 0, 0}, "in time"},
      {"closes its output", "exec >&-; exec sleep 1000", true, {0, 0, 0}, "does not end"},
      {"too few", "cat >/dev/null; echo 1; echo 1", false, {1, 1, 0}, "2 answers"},
      {"too many",
       "cat >/dev/null; echo 1; echo 1; echo 1; echo 1",
       false,
       {0, 0, 0},
       "more than 3"},
      {"a flood", "exec yes 1", false, {0, 0, 0}, ""},
      {"a line without end", "exec tr '\\0' x < /dev/zero", true, {0, 0, 0}, "megabyte"},
  };
  for (const Case& test : cases) {
    INFO(test.what << ": " << test.script);
    const bool hangs = test.said == "in time" || test.said == "does not end";
    auto rule = command(test.script, {{"keep", test.keep}, {"seconds", hangs ? 0.4 : 20.0}});
    std::vector<double> expected = test.values;
    if (test.what == "too few") expected = {0, 0, 0};  // its end condemns them all
    CHECK(rule->score(batch_of(3)) == expected);
    const int64_t failed = std::count(expected.begin(), expected.end(), 0.0);
    CHECK(rule->failures() == failed);
    const std::string reason = rule->first_failure();
    CHECK(reason.starts_with("reward command"));
    CHECK_THAT(reason, Catch::Matchers::Contains(test.said));
    if (hangs) continue;
    rule->score(batch_of(3));  // the run goes on
    CHECK(rule->failures() == 2 * failed);
    CHECK(rule->first_failure() == reason);
  }
}

TEST_CASE("a command is started again after a failure", "[rl][rewards]") {
  const auto flag = std::filesystem::temp_directory_path() /
                    ("cohort-command-flag-" + std::to_string(::getpid()));
  std::filesystem::remove(flag);
  auto rule = command("if [ ! -e " + flag.string() + " ]; then touch " + flag.string() +
                      "; exit 3; fi; while read -r line; do echo 2; done");
  CHECK(rule->score(batch_of(2)) == std::vector<double>{0, 0});
  CHECK(rule->score(batch_of(2)) == std::vector<double>{2, 2});
  CHECK(rule->score(batch_of(1)) == std::vector<double>{2});
  CHECK(rule->failures() == 2);
  CHECK_THAT(rule->first_failure(), Catch::Matchers::Contains("status 3"));
  std::filesystem::remove(flag);
}

TEST_CASE("a program may be given as a list", "[rl][rewards]") {
  auto rule = tests::reward("command", {{"command", {"sed", "-u", "s/.*/0.25/"}}});
  CHECK(rule->score(batch_of(2)) == std::vector<double>{0.25, 0.25});
}
