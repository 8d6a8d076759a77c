#include <fcntl.h>
#include <unistd.h>

#include <cmath>

#include "core/metrics/progress.h"
#include "tests/catch.h"
#include "tests/scratch_folder.h"

using namespace cohort;
using nlohmann::ordered_json;

namespace {

const ordered_json kScalars = {{"loss", 3.4123},
                               {"lm_loss", 3.1},
                               {"lr", 9.8e-4},
                               {"grad_norm", 1.034},
                               {"tokens", 1000},
                               {"tokens_per_second", 12345.0},
                               {"max_vio", 0.42},
                               {"skipped_steps", 0},
                               {"wall_seconds", 12}};

const ordered_json kRlScalars = {{"loss", -0.003},
                                 {"reward_mean", 0.9123},
                                 {"reward/format", 1.0},
                                 {"pass_rate", 0.8125},
                                 {"completion_tokens_mean", 41.3},
                                 {"generate_tokens_per_second", 3901.0},
                                 {"tokens_per_second", 2100.0},
                                 {"grad_norm", 0.4},
                                 {"lr", 1e-4}};

}  // namespace

TEST_CASE("The progress line shows what a run is looked at for", "[core-metrics]") {
  CHECK(core::progress_line(120, 1000, kScalars, 252, 0) ==
        "step 120/1000  loss 3.412  12.3k tok/s  MaxVio 0.42  grad 1.03  lr 9.8e-04  ETA 4m12s");
}

TEST_CASE("The progress line leaves out what it is not given", "[core-metrics]") {
  CHECK(core::progress_line(1, 9, ordered_json::object(), -1, 79) == "step 1/9");
  CHECK(core::progress_line(1, 9, {{"loss", 10.0}, {"word", "x"}}, -1, 79) ==
        "step 1/9  loss 10.00");
}

TEST_CASE("The progress line shows validation and skipped steps when there are some",
          "[core-metrics]") {
  const ordered_json scalars = {
      {"loss", 3.0}, {"val_loss", 3.21}, {"val_bits_per_byte", 2.0512}, {"skipped_steps", 2}};
  CHECK(core::progress_line(5, 9, scalars, -1, 0) ==
        "step 5/9  loss 3.000  val 3.210  2.051 bits/byte  skipped 2");
}

TEST_CASE("The progress line of an RL step shows reward and right answers, not the policy loss",
          "[core-metrics]") {
  CHECK(core::progress_line(120, 300, kRlScalars, 842, 0) ==
        "step 120/300  reward 0.912  pass 81.2%  length 41  3.90k gen tok/s  2.10k tok/s  "
        "grad 0.40  lr 1.0e-04  ETA 14m02s");
  ordered_json evaluated = kRlScalars;
  evaluated["eval_pass_at_1"] = 0.7988;
  CHECK(core::progress_line(120, 300, evaluated, 842, 40) ==
        "step 120/300 reward 0.912 held-out 79.9%");
  CHECK(core::progress_line(0, 300, {{"eval_pass_at_1", 0.117}, {"eval_problems", 512}}, -1, 0) ==
        "step 0/300  held-out 11.7%");
}

TEST_CASE("In a log file the lines of evaluation and validation steps are all there",
          "[core-metrics]") {
  tests::ScratchFolder dir;
  const int file = ::open((dir / "log").c_str(), O_WRONLY | O_CREAT, 0600);
  const int before = ::dup(STDERR_FILENO);
  REQUIRE(file >= 0);
  ::dup2(file, STDERR_FILENO);
  {
    core::ProgressLine line(9);
    line.show(1, {{"reward_mean", 0.1}});
    line.show(2, {{"reward_mean", 0.2}});  // too soon after the first
    line.show(3, {{"reward_mean", 0.3}, {"eval_pass_at_1", 0.5}});
    line.show(4, {{"loss", 4.0}, {"val_loss", 4.5}});
    line.show(5, {{"loss", 5.0}});
    line.show(6, {{"loss", 6.0}});  // the last one is written when the run ends
  }
  ::dup2(before, STDERR_FILENO);
  ::close(before);
  ::close(file);
  const std::string log = dir.read("log");
  CAPTURE(log);
  for (const char* shown : {"step 1/9", "step 3/9", "held-out 50.0%", "step 4/9", "step 6/9"})
    CHECK(log.find(shown) != std::string::npos);
  for (const char* left_out : {"step 2/9", "step 5/9"})
    CHECK(log.find(left_out) == std::string::npos);
}

TEST_CASE("The progress line fits the columns and keeps the loss longest", "[core-metrics]") {
  for (int columns = 1; columns < 120; ++columns) {
    const std::string line = core::progress_line(12345, 100000, kScalars, 1e6, columns);
    CAPTURE(columns, line);
    CHECK(line.size() <= static_cast<size_t>(columns));
    if (columns >= 29) CHECK(line.find("loss 3.412") != std::string::npos);
    if (columns >= 79) CHECK(line.find("MaxVio") != std::string::npos);
    if (columns >= 79) CHECK(line.find("ETA") != std::string::npos);
  }
  // All of a run of a thousand steps fits 80 columns.
  CHECK(core::progress_line(120, 1000, kScalars, 252, 79) ==
        "step 120/1000 loss 3.412 12.3k tok/s MaxVio 0.42 grad 1.03 lr 9.8e-04 ETA 4m12s");
}

TEST_CASE("The progress line says nan and inf", "[core-metrics]") {
  CHECK(core::progress_line(1, 9, {{"loss", std::nan("")}, {"grad_norm", HUGE_VAL}}, -1, 0) ==
        "step 1/9  loss nan  grad inf");
  CHECK(core::progress_line(1, 9, {{"loss", nullptr}}, -1, 0) == "step 1/9  loss nan");
}

TEST_CASE("Durations and counts are short", "[core-metrics]") {
  CHECK(core::short_duration(0) == "0s");
  CHECK(core::short_duration(59.6) == "1m00s");
  CHECK(core::short_duration(252) == "4m12s");
  CHECK(core::short_duration(3720) == "1h02m");
  CHECK(core::short_duration(90000) == "1d01h");
  CHECK(core::short_duration(std::nan("")) == "?");
  CHECK(core::short_count(0) == "0");
  CHECK(core::short_count(950) == "950");
  CHECK(core::short_count(9999) == "10.0k");
  CHECK(core::short_count(12345) == "12.3k");
  CHECK(core::short_count(999999) == "1.00M");
  CHECK(core::short_count(123456789) == "123M");
}

TEST_CASE("The rate leaves out the first step and follows the recent ones", "[core-metrics]") {
  core::StepRate rate(10.0);
  CHECK(rate.seconds_per_step() < 0);
  rate.observe(1, 100.0);  // took who knows how long
  CHECK(rate.seconds_per_step() < 0);
  for (int i = 1; i <= 50; ++i) rate.observe(1 + i, 100.0 + i);
  CHECK(rate.seconds_per_step() == Approx(1.0));
  for (int i = 1; i <= 50; ++i) rate.observe(51 + i, 150.0 + 3.0 * i);
  CHECK(rate.seconds_per_step() == Approx(3.0).epsilon(0.02));
}
