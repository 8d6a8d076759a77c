#include "moe/pretrain_loss.h"

#include "core/base/device_branch.h"
#include "core/nn/cross_entropy.h"

namespace cohort::moe {
namespace {

at::Tensor without_last(const at::Tensor& ids) {
  return ids.defined() ? ids.narrow(1, 0, ids.size(1) - 1) : ids;
}

at::Tensor cross_entropy_sum(const Transformer& model,
                             const at::Tensor& hidden,
                             const at::Tensor& target) {
  return core::linear_cross_entropy_sum(
      hidden.reshape({-1, hidden.size(-1)}), model.head(), target.reshape({-1}));
}

/// Targets of each depth over the whole step, at least 1 (a mean over nothing is 0).
std::vector<double> count_targets(const std::vector<core::Batch>& micro_batches,
                                  int64_t depths,
                                  const distributed::Mesh& mesh) {
  at::Tensor count = at::zeros({depths + 1}, at::kLong);
  for (const auto& batch : micro_batches)
    for (int64_t k = 0; k <= depths; ++k) count[k] += prediction_targets(batch, k).ge(0).sum();
  mesh.dp->all_reduce(count);
  std::vector<double> out;
  for (int64_t k = 0; k <= depths; ++k)
    out.push_back(static_cast<double>(std::max<int64_t>(1, count[k].item<int64_t>())));
  return out;
}

}  // namespace

at::Tensor prediction_targets(const core::Batch& batch, int64_t k) {
  const int64_t length = batch.seq_len() - k;
  const at::Tensor target = batch.tokens.narrow(1, k + 1, length);
  if (!batch.document_id.defined()) return target;
  const at::Tensor here = batch.document_id.narrow(1, 0, length);
  const at::Tensor there = batch.document_id.narrow(1, k + 1, length);
  return at::where(here.eq(there).logical_and(here.ge(0)), target, at::full({}, -1, at::kLong));
}

LossFunction pretrain_loss(const std::vector<core::Batch>& micro_batches,
                           const core::ModelConfig& model_config,
                           const core::RouterConfig& router,
                           const core::TrainConfig& train,
                           const distributed::Mesh& mesh) {
  const bool mtp = model_config.num_nextn_predict_layers > 0 && train.mtp_loss_weight > 0;
  const int64_t depths = mtp ? model_config.num_nextn_predict_layers : 0;
  const auto counts = count_targets(micro_batches, depths, mesh);
  int64_t rows = 0;
  for (const auto& batch : micro_batches) rows += batch.num_rows();
  rows *= mesh.shape.dp;  // every rank has as many
  const PassOptions pass{true, train.recompute == "layer", mtp};
  const double lambda = train.mtp_loss_weight, alpha = router.sequence_loss_alpha;

  return [=](Transformer& model, const core::Batch& batch) {
    const auto out =
        model.forward(without_last(batch.tokens), without_last(batch.document_id), pass);
    const at::Tensor lm =
        cross_entropy_sum(model, out.hidden, prediction_targets(batch, 0)) / counts[0];
    at::Tensor predicted = at::zeros_like(lm);
    for (int64_t k = 1; k <= depths; ++k)
      predicted = predicted +
                  cross_entropy_sum(model, out.mtp_hidden[k - 1], prediction_targets(batch, k)) /
                      (counts[k] * static_cast<double>(depths));
    const at::Tensor balance = out.sequence_loss * (alpha / static_cast<double>(rows));
    at::Tensor total = lm;
    if (depths > 0) total = total + predicted * lambda;
    if (alpha > 0) total = total + balance;
    return LossTerms{total,
                     {{"lm_loss", lm.detach()},
                      {"mtp_loss", predicted.detach()},
                      {"balance_loss", balance.detach()}}};
  };
}

NatsSum next_token_nats(Transformer& model, const core::Batch& batch) {
  at::NoGradGuard no_grad;
  const auto out =
      model.forward(without_last(batch.tokens), without_last(batch.document_id), PassOptions{});
  const at::Tensor target = prediction_targets(batch, 0);
  return {core::host_value(cross_entropy_sum(model, out.hidden, target)),
          target.ge(0).sum().item<int64_t>()};
}

}  // namespace cohort::moe
