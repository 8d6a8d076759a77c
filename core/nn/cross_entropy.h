#pragma once
#include <ATen/ATen.h>

namespace cohort::core {

/// Sum over tokens of -log softmax(x head^T)[target], taken in chunks of tokens so that [T, V] is
/// never held: forward computes the gradient of logits chunk by chunk and keeps only d x [T, D]
/// (and accumulates d head), as arXiv:2410.10989 does. x [T, D], head [V, D] of one dtype, target
/// [T] int64 with -1 = no target. Returns a scalar in fp32 (fp64 for fp64 inputs). Differentiable
/// in x and head; what needs no gradient costs none. Rows without a target are not multiplied.
/// bf16: logits are rounded to bf16, as at::linear does; the softmax, the sum of losses and d head
/// are kept in fp32. Throws Error for shapes that do not fit and targets outside -1 .. V - 1.
at::Tensor linear_cross_entropy_sum(const at::Tensor& x,
                                    const at::Tensor& head,
                                    const at::Tensor& target);

}  // namespace cohort::core
