// One small matrix for each attention head: how MLA's absorbed form turns queries into the space of
// the latent, and its result back (DeepSeek-V2, arXiv:2405.04434, section 2.1.2).
#pragma once
#include <ATen/ATen.h>

namespace cohort::core {

/// y[t, h] = x[t, h] W_h (W [H, I, O]), or x[t, h] W_h^T with `transposed` (W [H, O, I]).
/// x [T, H, I] -> [T, H, O]; the last dim of x and W is contiguous, other strides are free.
/// Differentiable in both (no second derivative). In fp32 on Cohort's GEMM a row has the same bits
/// whatever rows are computed with it.
at::Tensor head_linear(const at::Tensor& x, const at::Tensor& weight, bool transposed);

}  // namespace cohort::core
