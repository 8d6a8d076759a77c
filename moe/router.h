// Which experts a token goes to, and with what weight (DeepSeek-V3, arXiv:2412.19437, eq. 12-20).
#pragma once
#include <ATen/ATen.h>

#include "core/config/config.h"

namespace cohort::moe {

struct Routing {
  at::Tensor expert_TK;      ///< int64 [T, K], ascending in a row; not differentiable.
  at::Tensor gate_TK;        ///< [T, K] in the dtype of the logits; the selection bias is not in it.
  at::Tensor sequence_loss;  ///< Scalar: sum over rows of sum_i f_i P_i (eq. 17-20), without alpha.
};

/// logits_TE [T, E] fp32 or fp64; bias_E [E] of the same dtype, or undefined. The T tokens are
/// `rows` sequences of equal length. expert_TK, when given, is a choice made before (recompute): it
/// is taken as it is. gate_TK and sequence_loss are differentiable in logits_TE.
Routing route(const at::Tensor& logits_TE,
              const at::Tensor& bias_E,
              int64_t rows,
              const core::ModelConfig& config,
              const at::Tensor& expert_TK = {});

}  // namespace cohort::moe
