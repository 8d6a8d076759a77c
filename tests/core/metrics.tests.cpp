#include "core/metrics/metrics.h"

#include <sys/resource.h>

#include <cmath>
#include <csignal>
#include <limits>

#include "core/base/error.h"
#include "core/metrics/append_file.h"
#include "tests/catch.h"
#include "tests/scratch_folder.h"

using namespace cohort;
using nlohmann::ordered_json;
using tests::ScratchFolder;

namespace {

ordered_json scalars_of(int64_t step) {
  return {{"loss", 1.0 / static_cast<double>(step)}, {"tokens", 64 * step}};
}

void run_steps(const std::string& dir, int64_t resume_step, int64_t last) {
  core::RunLog log(dir, 40, resume_step);
  for (int64_t step = std::max<int64_t>(0, resume_step) + 1; step <= last; ++step) {
    log.step(step, scalars_of(step));
    log.expert_loads(step, {{"model.layers.1", {step, 2 * step}}});
    if (step % 3 == 0)
      log.samples(step,
                  {{{"completion", "a\n" + std::to_string(step)}, {"reward", 1}},
                   {{"completion", "b"}, {"reward", 0}}});
  }
}

}  // namespace

TEST_CASE("A step is one line of metrics.jsonl, step first, keys in the order given",
          "[core-metrics]") {
  ScratchFolder dir;
  {
    core::RunLog log(dir / "run", 10, -1);
    log.step(3, {{"loss", 2.5}, {"step", 99}, {"reward/format", 1}, {"lr", 1e-3}});
    CHECK(dir.read("run/metrics.jsonl") ==
          "{\"step\":3,\"loss\":2.5,\"reward/format\":1,\"lr\":0.001}\n");
    log.expert_loads(3, {{"model.layers.3", {5, 0, 7}}});
  }
  CHECK(dir.read("run/experts.jsonl") == "{\"step\":3,\"model.layers.3\":[5,0,7]}\n");
}

TEST_CASE("A value that is not finite is null in metrics.jsonl", "[core-metrics]") {
  ScratchFolder dir;
  core::RunLog(dir / "run", 10, -1)
      .step(1,
            {{"loss", std::nan("")},
             {"grad_norm", std::numeric_limits<double>::infinity()},
             {"lr", 1}});
  CHECK(dir.read("run/metrics.jsonl") ==
        "{\"step\":1,\"loss\":null,\"grad_norm\":null,\"lr\":1}\n");
}

TEST_CASE("Samples are lines of samples.jsonl, whatever bytes they hold", "[core-metrics]") {
  ScratchFolder dir;
  core::RunLog log(dir / "run", 10, -1);
  log.samples(1, {});
  CHECK_FALSE(std::filesystem::exists(dir / "run/samples.jsonl"));
  log.samples(2, {{{"prompt", "1+1="}, {"step", 9}, {"answer", nullptr}}, {{"reward", NAN}}});
  log.samples(3, {{{"completion", "\xff\n</script>"}}});
  CHECK(dir.read("run/samples.jsonl") ==
        "{\"step\":2,\"prompt\":\"1+1=\",\"answer\":null}\n{\"step\":2,\"reward\":null}\n"
        "{\"step\":3,\"completion\":\"\xef\xbf\xbd\\n</script>\"}\n");
}

TEST_CASE("A resumed run leaves the lines of an uninterrupted one", "[core-metrics]") {
  ScratchFolder dir;
  run_steps(dir / "whole", -1, 40);
  const int64_t resume_step = GENERATE(0, 1, 20, 26);
  run_steps(dir / "cut", -1, 27);
  run_steps(dir / "cut", resume_step, 40);
  CHECK(dir.read("cut/metrics.jsonl") == dir.read("whole/metrics.jsonl"));
  CHECK(dir.read("cut/experts.jsonl") == dir.read("whole/experts.jsonl"));
  CHECK(dir.read("cut/samples.jsonl") == dir.read("whole/samples.jsonl"));
  CHECK(dir.list("cut/tensorboard").size() == 2);
  const std::string events = dir.read("cut/events.jsonl");
  CHECK(events.find("\"started\"") != std::string::npos);
  CHECK(events.find("\"resumed\"") != std::string::npos);
}

TEST_CASE("A line torn by a kill is repaired on resume", "[core-metrics]") {
  ScratchFolder dir;
  run_steps(dir / "whole", -1, 40);
  run_steps(dir / "torn", -1, 27);
  // The kill came while step 28 was written, after the checkpoint of step 28.
  for (const char* name :
       {"torn/metrics.jsonl", "torn/experts.jsonl", "torn/samples.jsonl", "torn/events.jsonl"})
    dir.write(name, dir.read(name) + "{\"step\":28,\"lo");
  run_steps(dir / "torn", 27, 40);
  CHECK(dir.read("torn/metrics.jsonl") == dir.read("whole/metrics.jsonl"));
  CHECK(dir.read("torn/samples.jsonl") == dir.read("whole/samples.jsonl"));
  CHECK(dir.read("torn/experts.jsonl") == dir.read("whole/experts.jsonl"));
  std::istringstream events(dir.read("torn/events.jsonl"));
  int lines = 0;
  for (std::string line; std::getline(events, line); ++lines)
    CHECK_NOTHROW(ordered_json::parse(line));
  CHECK(lines == 2);
}

TEST_CASE("A new run removes the logs of an earlier one and nothing else", "[core-metrics]") {
  ScratchFolder dir;
  run_steps(dir / "run", -1, 5);
  dir.write("run/config.yaml", "kept");
  dir.write("run/tensorboard/notes.txt", "kept");
  run_steps(dir / "run", -1, 2);
  CHECK_FALSE(std::filesystem::exists(dir / "run/samples.jsonl"));  // made anew by its first line
  CHECK(dir.read("run/metrics.jsonl").find("\"step\":3") == std::string::npos);
  CHECK(dir.list("run/tensorboard").size() == 2);  // one event file, one note
  CHECK(dir.read("run/tensorboard/notes.txt") == "kept");
  CHECK(dir.read("run/config.yaml") == "kept");
}

TEST_CASE("A run folder that cannot be made is bad input", "[core-metrics]") {
  ScratchFolder dir;
  dir.write("file", "not a folder");
  CHECK_THROWS_AS(core::RunLog(dir / "file", 10, -1), InputError);
  CHECK_THROWS_AS(core::RunLog(dir / "file/below", 10, -1), InputError);
}

TEST_CASE("The step of a line is told from its start, or by parsing it", "[core-metrics]") {
  CHECK(core::step_of_line(R"({"step":12,"loss":1})") == 12);
  CHECK(core::step_of_line(R"({"step":0})") == 0);
  CHECK(core::step_of_line(R"({ "loss": 1, "step": 7 })") == 7);
  CHECK(core::step_of_line(R"({"step":12,"loss":)") == -1);
  CHECK(core::step_of_line(R"({"step":"12"})") == -1);
  CHECK(core::step_of_line(R"({"a":1,"step":1e300})") == -1);
  CHECK(core::step_of_line("[12]") == -1);
  CHECK(core::step_of_line("") == -1);
}

TEST_CASE("Cutting keeps what stands before the first broken or later line", "[core-metrics]") {
  ScratchFolder dir;
  dir.write("log", "{\"step\":1}\n{\"step\":2}\ngarbage\n{\"step\":3}\n");
  core::cut_after_step(dir / "log", 9);
  CHECK(dir.read("log") == "{\"step\":1}\n{\"step\":2}\n");
  core::cut_after_step(dir / "log", 1);
  CHECK(dir.read("log") == "{\"step\":1}\n");
  core::cut_after_step(dir / "missing", 1);
  CHECK_FALSE(std::filesystem::exists(dir / "missing"));
}

TEST_CASE("A record that does not fit is taken back whole, and later ones are tried again",
          "[core-metrics]") {
  ScratchFolder dir;
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit tight = before;
  tight.rlim_cur = 10;
  core::AppendFile file(dir / "log");
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &tight) == 0);
  file.append("first\n");
  file.append("second, too long\n");
  file.append("3rd\n");
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  file.append("fourth\n");
  CHECK(dir.read("log") == "first\n3rd\nfourth\n");
}

TEST_CASE("A disk that is full costs lines, not the run", "[core-metrics]") {
  core::AppendFile full("/dev/full");
  CHECK_NOTHROW(full.append("a line\n"));
  CHECK_NOTHROW(full.append("another\n"));
}
