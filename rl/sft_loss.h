// Cross-entropy of the trained tokens of examples, and distillation from what a teacher told of
// them.
//
// A trained token t of which a teacher told its K likeliest (rl/teacher.h) adds
//
//   (1 - w) (-log q(t)) + w T^2 KL(P || Q)      forward_kl;  KL(Q || P): reverse_kl
//
// and any other -log q(t). P and Q are over K + 1 buckets, the teacher's K tokens and one for all
// the rest of the vocabulary: p_i and 1 - sum p_i of the teacher, q_i and the sum of q over the
// rest of the student; T, the temperature, softens both: P_i = p_i^(1/T) / sum_j p_j^(1/T). At T =
// 1 that is a lower bound of the divergence over the vocabulary, 0 exactly where the buckets agree;
// arXiv:1503.02531 for T^2. kernels/cpu/distillation.h has the gradient.
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
/// moe::train_step as there. With `distill`, lm is the mean of the terms above over all trained
/// tokens; lm_loss stays their cross-entropy, and a part distill_kl is the mean divergence (with
/// its T^2) of the `teacher` tokens of the step of which a teacher told. Modules of multi-token
/// prediction learn from the tokens alone. Collective over the model's ep axis.
moe::LossTerms sft_loss(moe::Transformer& model,
                        const SftBatch& batch,
                        const std::vector<int64_t>& targets,
                        double mtp_weight,
                        bool recompute,
                        const core::DistillConfig& distill = {},
                        int64_t teacher = 0);

/// Sum of -log p over the trained tokens of a batch; no gradient. Collective over ep.
double sft_nats(moe::Transformer& model, const SftBatch& batch);

}  // namespace cohort::rl
