// Balance without an auxiliary loss (arXiv:2408.15664): once a step the selection bias of every
// expert moves by gamma against its load.
#pragma once
#include <ATen/ATen.h>

namespace cohort::moe {

/// bias_E += gamma * sign(mean load - load_E). load_E int64: how often each expert was chosen in the
/// whole step, over all ranks and micro-batches. Exact in integers; an expert whose load is the mean
/// does not move.
void update_bias(at::Tensor& bias_E, const at::Tensor& load_E, double gamma);

/// MaxVio = max load / mean load - 1; 0 when nothing was routed.
double max_violation(const at::Tensor& load_E);

}  // namespace cohort::moe
