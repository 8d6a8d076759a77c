#include <cmath>

#include "core/metrics/progress.h"
#include "tests/catch.h"

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
