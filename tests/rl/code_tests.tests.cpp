#include <fstream>

#include "core/base/error.h"
#include "rl/rewards/sandbox.h"
#include "tests/catch.h"
#include "tests/rl/completions.h"

using namespace cohort;

namespace {

/// Shell programs: they start in a millisecond.
nlohmann::json shell(nlohmann::json more = nlohmann::json::object()) {
  nlohmann::json options = {{"command", {"sh", "{file}"}}, {"file", "main.sh"}, {"seconds", 10}};
  options.update(more);
  return options;
}

rl::Completion program(const std::string& code, nlohmann::json tests) {
  return tests::completion("Here it is:\n```sh\n" + code + "\n```\nDone.", {{"tests", tests}});
}

double run(const std::string& code,
           nlohmann::json tests,
           nlohmann::json more = nlohmann::json::object()) {
  auto rule = tests::reward("code_tests", shell(more));
  const double value = tests::score(*rule, program(code, tests));
  CHECK(rule->failures() == 0);
  return value;
}

rl::Outcome outcome(const std::string& code,
                    const rl::Limits& limits,
                    int64_t output_bytes = 65536) {
  const rl::ProgramFolder folder;
  return rl::run_limited(
      {"sh", folder.write("main.sh", code)}, folder, "input\n", limits, output_bytes);
}

size_t program_folders() {
  size_t count = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator(std::filesystem::temp_directory_path()))
    count += entry.path().filename().string().rfind("cohort-program-", 0) == 0;
  return count;
}

}  // namespace

TEST_CASE("a program passes when its output is the expected one", "[rl][rewards]") {
  const nlohmann::json sums = {{{"input", "1 2\n"}, {"output", "3\n"}},
                               {{"input", "20 22\n"}, {"output", "42"}}};
  CHECK(run("read a b; echo $((a + b))", sums) == 1);
  CHECK(run("read a b; printf '%s  \\n\\n' $((a + b))", sums) == 1);  // white space at the ends
  CHECK(run("echo 3", sums) == 0);
  CHECK(run("echo 3", sums, {{"credit", "share"}}) == 0.5);
  CHECK(run("echo 3", sums, {{"max_tests", 1}}) == 1);
  CHECK(run("read a b; echo $((a + b)); exit 1", sums) == 0);
  CHECK(run("read a b; echo $((a + b)); kill -9 $$", sums) == 0);
  CHECK(run("", sums) == 0);
  auto rule = tests::reward("code_tests", shell());
  CHECK(tests::score(*rule, tests::completion("echo 3", {{"tests", sums}})) == 0);  // no block
  CHECK_THROWS_AS(tests::score(*rule, tests::completion("```\n```", {{"answer", 1}})), InputError);
  // The last block counts.
  CHECK(tests::score(*rule,
                     tests::completion("```sh\necho 1\n```\nno:\n```sh\necho 3\n```",
                                       {{"tests", {{{"output", "3"}}}}})) == 1);
}

TEST_CASE("many programs run side by side and keep their order", "[rl][rewards]") {
  auto rule = tests::reward("code_tests", shell({{"workers", 4}}));
  std::vector<rl::Completion> batch;
  for (int i = 0; i < 12; ++i)
    batch.push_back(
        program("echo " + std::to_string(i), {{{"output", i % 3 ? "x" : std::to_string(i)}}}));
  const auto values = rule->score(batch);
  for (int i = 0; i < 12; ++i) CHECK(values[i] == (i % 3 ? 0 : 1));
}

TEST_CASE("a program cannot use more than it is given", "[rl][rewards]") {
  rl::Limits limits;
  limits.seconds = 0.5;
  SECTION("wall time") { CHECK(outcome("sleep 1000", limits).end == rl::Outcome::kTimedOut); }
  SECTION("processor time") {
    limits.seconds = 30;
    const auto busy = outcome("ulimit -t", limits);
    CHECK(busy.output == "30\n");
  }
  SECTION("a closed output does not hide a program") {
    CHECK(outcome("exec >&-; sleep 1000", limits).end == rl::Outcome::kTimedOut);
  }
  SECTION("what it starts in the background") {
    limits.seconds = 20;
    const auto left = outcome("sleep 1000 & (setsid sleep 1000 &) ; echo started", limits);
    CHECK(left.end == rl::Outcome::kExited);
    CHECK(left.output == "started\n");
  }
  SECTION("output") {
    limits.seconds = 20;
    CHECK(outcome("while :; do echo aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa; done", limits).end ==
          rl::Outcome::kTooMuch);
  }
  SECTION("file size") {
    limits.seconds = 20;
    limits.file_bytes = 4096;
    const auto big =
        outcome("trap '' XFSZ; head -c 100000 /dev/zero > big 2>/dev/null; wc -c < big", limits);
    CHECK(big.end == rl::Outcome::kExited);
    CHECK(std::stoll(big.output) <= 4096);
  }
  SECTION("memory") {
    limits.seconds = 20;
    limits.memory_bytes = int64_t{128} << 20;
    CHECK(
        outcome("head -c 400000000 /dev/zero | tail -c 300000000 > /dev/null && echo fits", limits)
            .output.find("fits") == std::string::npos);
  }
}

TEST_CASE("a program stands alone", "[rl][rewards]") {
  rl::Limits limits;
  limits.seconds = 20;
  CHECK(outcome("cat", limits).output == "input\n");
  CHECK(outcome("pwd; ls; touch made && ls", limits).output.find("main.sh\nmade\n") !=
        std::string::npos);
  CHECK(outcome("env | grep -v -E '^(PATH|HOME|TMPDIR|LANG|OMP_NUM_THREADS|PWD|OLDPWD|SHLVL|_)='",
                limits)
            .output.empty());
  CHECK(outcome("id -u", limits).output != "0\n");  // never root
  const auto network = outcome("tail -n +3 /proc/net/dev | grep -v lo: | wc -l", limits);
  if (network.network_closed)
    CHECK(network.output == "0\n");
  else
    WARN("this system allows no network namespaces");
  CHECK(outcome("ls /proc/self/fd | wc -l", limits).output == "4\n");  // 0, 1, 2 and ls's own
  const auto missing = rl::run_limited({"no-such-program"}, rl::ProgramFolder(), "", limits, 100);
  CHECK(missing.end == rl::Outcome::kNotStarted);
}

TEST_CASE("nothing of a program is left behind", "[rl][rewards]") {
  const size_t before = program_folders();
  rl::Limits limits;
  limits.seconds = 20;
  outcome("mkdir -p a/b; touch a/b/c; chmod 000 a/b a; ln -s / root", limits);
  CHECK(program_folders() == before);
  CHECK(std::filesystem::exists("/"));
}
