#include "core/optim/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/base/error.h"

namespace cohort::core {

double learning_rate(const ScheduleConfig& config, double peak, int64_t step, int64_t total) {
  const int64_t last = config.total_steps > 0 ? config.total_steps : total;
  const int64_t warmup = config.warmup_steps;
  COHORT_CHECK(step >= 1 && last >= 1 && warmup >= 0,
               "learning rate of step {} of {} with {} steps of warm-up",
               step,
               last,
               warmup);
  const int64_t at = std::min(step, last);
  if (at <= warmup) return peak * static_cast<double>(at) / static_cast<double>(warmup);
  if (config.name == "warmup_constant") return peak;

  const double progress = static_cast<double>(at - warmup) / static_cast<double>(last - warmup);
  const double fall = 1.0 - config.min_lr_ratio;
  if (at == last) return peak * config.min_lr_ratio;  // not off by a rounding of cos or 1 - fall
  if (config.name == "warmup_linear") return peak * (1.0 - fall * progress);
  COHORT_CHECK(config.name == "warmup_cosine", "no schedule is called '{}'", config.name);
  return peak * (config.min_lr_ratio + fall * 0.5 * (1.0 + std::cos(std::numbers::pi * progress)));
}

}  // namespace cohort::core
