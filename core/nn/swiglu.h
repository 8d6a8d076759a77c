#pragma once
#include <ATen/ATen.h>

namespace cohort::core {

/// silu(gate) * up for gate_up [..., 2 I] = gate beside up; gives [..., I]; differentiable, nothing
/// but gate_up kept for backward.
at::Tensor swiglu(const at::Tensor& gate_up);

}  // namespace cohort::core
