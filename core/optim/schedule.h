// The learning rate of a step.
#pragma once
#include "core/config/config.h"

namespace cohort::core {

/// Learning rate of the update that ends step `step` (1-based): rises linearly to `peak` over
/// warmup_steps, then falls to peak * min_lr_ratio at step `total` by cosine or line, or stays
/// (warmup_constant).
double learning_rate(const ScheduleConfig& config, double peak, int64_t step, int64_t total);

}  // namespace cohort::core
