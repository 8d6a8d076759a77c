#include "rl/sft_loss.h"

#include <algorithm>

#include "core/base/device_branch.h"
#include "core/nn/cross_entropy.h"

namespace cohort::rl {
namespace {

at::Tensor cross_entropy_sum(const moe::Transformer& model,
                             const at::Tensor& hidden,
                             const at::Tensor& target) {
  return core::linear_cross_entropy_sum(
      hidden.reshape({-1, hidden.size(-1)}), model.head(), target);
}

double at_least_one(int64_t count) { return static_cast<double>(std::max<int64_t>(1, count)); }

}  // namespace

moe::LossTerms sft_loss(moe::Transformer& model,
                        const SftBatch& batch,
                        const std::vector<int64_t>& targets,
                        double mtp_weight,
                        bool recompute) {
  const size_t depths = targets.size() - 1;
  const moe::PassOptions pass{true, recompute, depths > 0};
  const auto out = model.forward(batch.input_ids, batch.layout, pass);
  const at::Tensor lm =
      cross_entropy_sum(model, out.hidden, batch.targets[0]) / at_least_one(targets[0]);
  at::Tensor predicted = at::zeros_like(lm);
  for (size_t k = 1; k <= depths; ++k)
    predicted = predicted + cross_entropy_sum(model, out.mtp_hidden[k - 1], batch.targets[k]) /
                                (at_least_one(targets[k]) * static_cast<double>(depths));
  const at::Tensor total = depths > 0 ? lm + predicted * mtp_weight : lm;
  return {total, {{"lm_loss", lm.detach()}, {"mtp_loss", predicted.detach()}}};
}

double sft_nats(moe::Transformer& model, const SftBatch& batch) {
  at::NoGradGuard no_grad;
  const auto out = model.forward(batch.input_ids, batch.layout, moe::PassOptions{});
  return core::host_value(cross_entropy_sum(model, out.hidden, batch.targets[0]));
}

}  // namespace cohort::rl
