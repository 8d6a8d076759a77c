#include "rl/sft_loss.h"

#include <algorithm>

#include "core/base/device_branch.h"
#include "core/nn/cross_entropy.h"
#include "core/nn/distillation.h"

namespace cohort::rl {
namespace {

at::Tensor cross_entropy_sum(const moe::Transformer& model,
                             const at::Tensor& hidden,
                             const at::Tensor& target) {
  return core::linear_cross_entropy_sum(
      hidden.reshape({-1, hidden.size(-1)}), model.head(), target);
}

double at_least_one(int64_t count) { return static_cast<double>(std::max<int64_t>(1, count)); }

/// Sums over the batch's tokens of depth 0.
struct TokenSums {
  at::Tensor loss;                       ///< What is learned from.
  at::Tensor cross_entropy, divergence;  ///< Without a graph.
};

TokenSums token_sums(const moe::Transformer& model,
                     const at::Tensor& hidden,
                     const SftBatch& batch,
                     const core::DistillConfig& distill) {
  if (distill.weight == 0 || !batch.teacher_rows.defined()) {
    const at::Tensor nats = cross_entropy_sum(model, hidden, batch.targets[0]);
    return {nats, nats.detach(), at::zeros_like(nats.detach())};
  }
  const at::Tensor rows = hidden.reshape({-1, hidden.size(-1)});
  const auto told = core::linear_distillation_sum(
      rows.index_select(0, batch.teacher_rows),
      model.head(),
      batch.targets[0].index_select(0, batch.teacher_rows),
      batch.top_tokens,
      batch.top_log_probs,
      {distill.weight, distill.divergence == "reverse_kl", distill.temperature});
  const at::Tensor others = batch.targets[0].index_fill(0, batch.teacher_rows, -1);
  const at::Tensor nats = cross_entropy_sum(model, hidden, others);
  return {told.loss + nats, told.cross_entropy + nats.detach(), told.divergence};
}

}  // namespace

moe::LossTerms sft_loss(moe::Transformer& model,
                        const SftBatch& batch,
                        const std::vector<int64_t>& targets,
                        double mtp_weight,
                        bool recompute,
                        const core::DistillConfig& distill,
                        int64_t teacher) {
  const size_t depths = targets.size() - 1;
  const moe::PassOptions pass{true, recompute, depths > 0};
  const auto out = model.forward(batch.input_ids, batch.layout, pass);
  const TokenSums sums = token_sums(model, out.hidden, batch, distill);
  const at::Tensor lm = sums.loss / at_least_one(targets[0]);
  at::Tensor predicted = at::zeros_like(lm);
  for (size_t k = 1; k <= depths; ++k)
    predicted = predicted + cross_entropy_sum(model, out.mtp_hidden[k - 1], batch.targets[k]) /
                                (at_least_one(targets[k]) * static_cast<double>(depths));
  const at::Tensor total = depths > 0 ? lm + predicted * mtp_weight : lm;
  moe::LossTerms terms{total,
                       {{"lm_loss", sums.cross_entropy / at_least_one(targets[0])},
                        {"mtp_loss", predicted.detach()}}};
  if (distill.weight > 0)
    terms.parts.emplace_back("distill_kl", sums.divergence / at_least_one(teacher));
  return terms;
}

double sft_nats(moe::Transformer& model, const SftBatch& batch) {
  at::NoGradGuard no_grad;
  const auto out = model.forward(batch.input_ids, batch.layout, moe::PassOptions{});
  return core::host_value(cross_entropy_sum(model, out.hidden, batch.targets[0]));
}

}  // namespace cohort::rl
