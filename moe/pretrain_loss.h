// The pretraining loss: next token, multi-token prediction and the sequence-wise balance term
// (DeepSeek-V3, arXiv:2412.19437, eq. 17-20 and 24-25).
#pragma once
#include <ATen/ATen.h>

#include <vector>

#include "core/config/config.h"
#include "core/data/batch.h"
#include "distributed/mesh.h"
#include "moe/train_step.h"

namespace cohort::moe {

/// What a hidden state predicts at depth `k` (0: the next token): int64 [B, S - k], position i holds
/// token i + k + 1, or -1 where that lies in another document (or in padding).
at::Tensor prediction_targets(const core::Batch& batch, int64_t k);

/// L = lm + lambda / depth x sum_k mtp_k + alpha x mean over the step's rows of the sum over layers of
/// sequence_loss; each prediction term is a mean over its targets in the whole step. Parts: lm_loss,
/// mtp_loss (mean over depths, without lambda), balance_loss (with alpha). Counts targets over all
/// ranks: collective over dp.
LossFunction pretrain_loss(const std::vector<core::Batch>& micro_batches,
                           const core::ModelConfig& model,
                           const core::RouterConfig& router,
                           const core::TrainConfig& train,
                           const distributed::Mesh& mesh);

/// Sum of next-token nats over a batch and the number of targets; no gradient. Collective over the
/// model's ep axis.
struct NatsSum {
  double nats = 0;
  int64_t targets = 0;
};
NatsSum next_token_nats(Transformer& model, const core::Batch& batch);

}  // namespace cohort::moe
