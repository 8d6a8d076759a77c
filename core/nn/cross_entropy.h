#pragma once
#include <ATen/ATen.h>

namespace cohort::core {

/// Sum over tokens of -log softmax(x head^T)[target], taken in chunks of tokens so that [T, V] is
/// never held: forward computes the gradient of logits chunk by chunk and keeps only d x [T, D]
/// (and accumulates d head), as arXiv:2410.10989 does. x [T, D], head [V, D] of one dtype, target
/// [T] int64 with -1 = no target. Returns a scalar in fp32 (fp64 for fp64 inputs). Differentiable
/// in x and head.
at::Tensor linear_cross_entropy_sum(const at::Tensor& x,
                                    const at::Tensor& head,
                                    const at::Tensor& target);

}  // namespace cohort::core
