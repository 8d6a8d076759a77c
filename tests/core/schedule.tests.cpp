#include "core/optim/schedule.h"
#include "core/base/error.h"
#include "tests/catch.h"

using cohort::core::learning_rate;
using cohort::core::ScheduleConfig;

namespace {

ScheduleConfig schedule(const std::string& name,
                        int64_t warmup,
                        double min_ratio,
                        int64_t total = 0) {
  ScheduleConfig config;
  config.name = name;
  config.warmup_steps = warmup;
  config.min_lr_ratio = min_ratio;
  config.total_steps = total;
  return config;
}

}  // namespace

TEST_CASE("the learning rate rises linearly and reaches its peak at the last warm-up step",
          "[core-schedule]") {
  for (const char* name : {"warmup_cosine", "warmup_linear", "warmup_constant"}) {
    const auto config = schedule(name, 4, 0.1);
    CHECK(learning_rate(config, 8.0, 1, 100) == 2.0);
    CHECK(learning_rate(config, 8.0, 2, 100) == 4.0);
    CHECK(learning_rate(config, 8.0, 3, 100) == 6.0);
    CHECK(learning_rate(config, 8.0, 4, 100) == 8.0);
  }
}

TEST_CASE("a cosine passes the middle at half time and ends at the minimum", "[core-schedule]") {
  const auto config = schedule("warmup_cosine", 2, 0.2);
  CHECK(learning_rate(config, 1.0, 4, 10) == Approx(0.2 + 0.8 * 0.8535533905932737));  // p = 1/4
  CHECK(learning_rate(config, 1.0, 6, 10) == Approx(0.6));                             // p = 1/2
  CHECK(learning_rate(config, 1.0, 8, 10) == Approx(0.2 + 0.8 * 0.1464466094067262));  // p = 3/4
  CHECK(learning_rate(config, 1.0, 10, 10) == 0.2);
  CHECK(learning_rate(config, 1.0, 11, 10) == 0.2);
  CHECK(learning_rate(config, 1.0, 1000, 10) == 0.2);
}

TEST_CASE("a line falls by equal amounts and ends at the minimum", "[core-schedule]") {
  const auto config = schedule("warmup_linear", 0, 0.5);
  CHECK(learning_rate(config, 2.0, 1, 4) == Approx(1.75));
  CHECK(learning_rate(config, 2.0, 2, 4) == Approx(1.5));
  CHECK(learning_rate(config, 2.0, 3, 4) == Approx(1.25));
  CHECK(learning_rate(config, 2.0, 4, 4) == 1.0);
  CHECK(learning_rate(schedule("warmup_linear", 0, 0.0), 2.0, 4, 4) == 0.0);
}

TEST_CASE("a constant schedule stays at its peak to the end and beyond", "[core-schedule]") {
  const auto config = schedule("warmup_constant", 1, 0.1);
  for (int64_t step : {1, 2, 9, 10, 50}) CHECK(learning_rate(config, 3e-4, step, 10) == 3e-4);
}

TEST_CASE("total_steps of the schedule goes before the steps of the run", "[core-schedule]") {
  const auto config = schedule("warmup_linear", 0, 0.0, 100);
  CHECK(learning_rate(config, 1.0, 10, 10) == Approx(0.9));
  CHECK(learning_rate(config, 1.0, 100, 10) == 0.0);
}

TEST_CASE("no warm-up begins to fall with the first step", "[core-schedule]") {
  CHECK(learning_rate(schedule("warmup_cosine", 0, 0.0), 1.0, 1, 2) == Approx(0.5));
  CHECK(learning_rate(schedule("warmup_constant", 0, 0.0), 1.0, 1, 2) == 1.0);
}

TEST_CASE("a warm-up as long as the run or longer is all there is", "[core-schedule]") {
  for (const char* name : {"warmup_cosine", "warmup_linear", "warmup_constant"}) {
    CHECK(learning_rate(schedule(name, 10, 0.1), 1.0, 10, 10) == 1.0);
    CHECK(learning_rate(schedule(name, 10, 0.1), 1.0, 11, 10) == 1.0);
    CHECK(learning_rate(schedule(name, 20, 0.1), 1.0, 10, 10) == 0.5);
    CHECK(learning_rate(schedule(name, 20, 0.1), 1.0, 15, 10) == 0.5);
  }
}

TEST_CASE("a run of one step has the end of its schedule", "[core-schedule]") {
  CHECK(learning_rate(schedule("warmup_cosine", 0, 0.1), 1.0, 1, 1) == 0.1);
  CHECK(learning_rate(schedule("warmup_constant", 0, 0.1), 1.0, 1, 1) == 1.0);
  CHECK(learning_rate(schedule("warmup_cosine", 1, 0.1), 1.0, 1, 1) == 1.0);
  CHECK(learning_rate(schedule("warmup_cosine", 4, 0.1), 1.0, 1, 1) == 0.25);
}

TEST_CASE("after the warm-up the learning rate never rises", "[core-schedule]") {
  for (const char* name : {"warmup_cosine", "warmup_linear"})
    for (int64_t step = 8; step < 300; ++step)
      REQUIRE(learning_rate(schedule(name, 7, 0.1), 1e-3, step, 250) <=
              learning_rate(schedule(name, 7, 0.1), 1e-3, step - 1, 250));
}

TEST_CASE("a step before the first, a run of no step and an unknown schedule are refused",
          "[core-schedule]") {
  CHECK_THROWS_AS(learning_rate(schedule("warmup_cosine", 0, 0.1), 1.0, 0, 10), cohort::Error);
  CHECK_THROWS_AS(learning_rate(schedule("warmup_cosine", 0, 0.1), 1.0, 1, 0), cohort::Error);
  CHECK_THROWS_AS(learning_rate(schedule("step", 0, 0.1), 1.0, 1, 10), cohort::Error);
}
