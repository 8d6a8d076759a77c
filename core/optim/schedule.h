// The learning rate of a step.
#pragma once
#include "core/config/config.h"

namespace cohort::core {

/// Learning rate of the update that ends step `step` (1-based, >= 1). With W = warmup_steps,
/// N = config.total_steps, or `total` (the run's steps, >= 1) when that is 0, and s = min(step, N):
///
///   s <= W   peak * s / W                                   the peak is reached at step W
///   s >  W   with p = (s - W) / (N - W) in (0, 1], m = min_lr_ratio:
///     warmup_cosine    peak * (m + (1 - m) * (1 + cos(pi p)) / 2)
///     warmup_linear    peak * (1 - (1 - m) * p)
///     warmup_constant  peak
///
/// So step N has exactly peak * m when it lies beyond the warm-up (also N = 1 with W = 0), and
/// steps after N keep its rate. W = 0: the first step has already begun to fall. W >= N: only the
/// rise is seen, and the peak is reached at step N at most.
double learning_rate(const ScheduleConfig& config, double peak, int64_t step, int64_t total);

}  // namespace cohort::core
