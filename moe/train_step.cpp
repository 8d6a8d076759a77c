#include "moe/train_step.h"

#include "core/base/device_branch.h"
#include "core/base/error.h"
#include "moe/balance.h"

namespace cohort::moe {
namespace {

/// Adds the reported scalars of one micro-batch to `sums`: fp64 [loss, part 0, part 1, ...], where
/// the loss is, so that the device is not waited for.
void add_terms(const LossTerms& terms, std::vector<std::string>& names, at::Tensor& sums) {
  const auto number = [&](const at::Tensor& value) {
    return value.detach().to(terms.total.device(), at::kDouble, /*non_blocking=*/true).reshape({1});
  };
  std::vector<at::Tensor> values{number(terms.total)};
  for (const auto& [name, value] : terms.parts) values.push_back(number(value));
  const at::Tensor row = at::cat(values);
  if (!sums.defined()) {
    sums = at::zeros_like(row);
    for (const auto& [name, value] : terms.parts) names.push_back(name);
  }
  COHORT_CHECK(sums.numel() == row.numel(),
               "a loss gave {} parts after {}",
               terms.parts.size(),
               sums.numel() - 1);
  sums.add_(row);
}

void reduce_terms(const std::vector<std::string>& names,
                  at::Tensor sums,
                  const distributed::Mesh& mesh,
                  StepReport& report) {
  mesh.dp->all_reduce(sums);
  const at::Tensor on_host = core::to_host(sums);
  const double* all = on_host.const_data_ptr<double>();
  report.loss = all[0];
  for (size_t i = 0; i < names.size(); ++i) report.parts.emplace_back(names[i], all[i + 1]);
}

/// Sums the loads over ranks, in one message for all layers; gives them where the layers are.
at::Tensor reduce_loads(const std::vector<MoeLayer*>& layers,
                        const distributed::Mesh& mesh,
                        StepReport& report) {
  if (layers.empty()) return {};
  std::vector<at::Tensor> local;
  for (auto* layer : layers) local.push_back(layer->load());
  at::Tensor all = at::stack(local);
  mesh.dp->all_reduce(all);
  const at::Tensor on_host = core::to_host(all);
  for (size_t i = 0; i < layers.size(); ++i) {
    report.loads.push_back(on_host[static_cast<int64_t>(i)]);
    report.max_violation += max_violation(report.loads.back()) / static_cast<double>(layers.size());
  }
  return all;
}

}  // namespace

StepReport train_step(Transformer& model,
                      distributed::ShardedOptimizer& optimizer,
                      const distributed::Mesh& mesh,
                      int64_t micro_batches,
                      const std::function<LossTerms(int64_t)>& loss,
                      const StepOptions& options) {
  const auto layers = model.moe_layers();
  for (auto* layer : layers) layer->clear_load();
  optimizer.zero_gradients();

  std::vector<std::string> names;
  at::Tensor sums;
  for (int64_t i = 0; i < micro_batches; ++i) {
    if (i + 1 == micro_batches) optimizer.expect_last_backward();
    const LossTerms terms = loss(i);
    terms.total.backward();
    add_terms(terms, names, sums);
  }

  StepReport report;
  report.update = optimizer.step(options.lr);
  reduce_terms(names, sums, mesh, report);
  const at::Tensor loads = reduce_loads(layers, mesh, report);
  if (!report.update.skipped && options.bias_update_speed != 0)
    for (size_t i = 0; i < layers.size(); ++i)
      if (layers[i]->bias().defined())
        update_bias(layers[i]->bias(), loads[static_cast<int64_t>(i)], options.bias_update_speed);
  return report;
}

StepReport train_step(Transformer& model,
                      distributed::ShardedOptimizer& optimizer,
                      const distributed::Mesh& mesh,
                      const std::vector<core::Batch>& micro_batches,
                      const LossFunction& loss,
                      const StepOptions& options) {
  return train_step(
      model,
      optimizer,
      mesh,
      static_cast<int64_t>(micro_batches.size()),
      [&](int64_t i) { return loss(model, micro_batches[static_cast<size_t>(i)]); },
      options);
}

}  // namespace cohort::moe
