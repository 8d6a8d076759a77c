// Cross-entropy of the trained tokens of examples.
#pragma once
#include <vector>

#include "moe/train_step.h"
#include "moe/transformer.h"
#include "rl/sft_rows.h"

namespace cohort::rl {

/// L = lm + mtp_weight / depths x sum_k mtp_k, each term a mean over the trained tokens of the
/// whole step that its depth predicts: `targets[k]` of them, over all ranks and micro-batches (a
/// depth without any gives 0). A module of multi-token prediction reads the same example only, and
/// is taught trained tokens only. Parts: lm_loss, mtp_loss (mean over depths, without the weight).
/// The sequence-wise balance term is of pretraining and not added; the router's bias is moved by
/// moe::train_step as there. Collective over the model's ep axis.
moe::LossTerms sft_loss(moe::Transformer& model,
                        const SftBatch& batch,
                        const std::vector<int64_t>& targets,
                        double mtp_weight,
                        bool recompute);

/// Sum of -log p over the trained tokens of a batch; no gradient. Collective over ep.
double sft_nats(moe::Transformer& model, const SftBatch& batch);

}  // namespace cohort::rl
