// The loss of a student on tokens whose likeliest alternatives a teacher has told, in chunks of
// tokens as cross_entropy.h: kernels/cpu/distillation.h has the equations.
#pragma once
#include <ATen/ATen.h>

#include "kernels/cpu/distillation.h"

namespace cohort::core {

using kernels::DistillationRule;

struct DistillationSums {
  at::Tensor loss;           ///< Sum of (1 - weight) nats + weight divergence; differentiable.
  at::Tensor cross_entropy;  ///< Sum of nats of the targets, without a graph.
  at::Tensor divergence;     ///< Sum of divergences, without a graph.
};

/// x [T, D], head [V, D] of one dtype; target int64 [T] in 0 .. V - 1; top_tokens int32 [T, K]:
/// different tokens below V, -1 after a row's last, at least one a row; top_log_probs fp32 or fp64
/// [T, K], nats. T may be 0. Scalars in fp32 (fp64 for fp64 inputs). [T, V] is never held; forward
/// computes the gradients, as linear_cross_entropy_sum does. Differentiable once, in x and head.
/// Throws Error for shapes, dtypes and tokens that do not fit.
DistillationSums linear_distillation_sum(const at::Tensor& x,
                                         const at::Tensor& head,
                                         const at::Tensor& target,
                                         const at::Tensor& top_tokens,
                                         const at::Tensor& top_log_probs,
                                         const DistillationRule& rule);

}  // namespace cohort::core
