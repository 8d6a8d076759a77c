// The device branches of the small layers: compositions of LibTorch's operations, differentiable
// through it. Arguments are checked by who calls; bf16 is computed in fp32 and rounded once.
#pragma once
#include <ATen/ATen.h>

namespace cohort::core::device {

/// core::rms_norm.
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);
/// core::swiglu.
at::Tensor swiglu(const at::Tensor& gate_up);

}  // namespace cohort::core::device
