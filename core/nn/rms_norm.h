#pragma once
#include <ATen/ATen.h>

namespace cohort::core {

/// y = weight * x / sqrt(mean(x^2) + eps) over the last dim; differentiable. x [..., D] and weight
/// [D] of one dtype (fp32, fp64, bf16); bf16 is computed in fp32 inside and rounded once.
/// (arXiv:1910.07467, eq. 4)
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);

}  // namespace cohort::core
