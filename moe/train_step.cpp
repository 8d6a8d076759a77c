#include "moe/train_step.h"

#include "core/base/error.h"
#include "moe/balance.h"

namespace cohort::moe {
namespace {

/// Adds the reported scalars of one micro-batch to `sums`: [loss, part 0, part 1, ...].
void add_terms(const LossTerms& terms, std::vector<std::string>& names, std::vector<double>& sums) {
  if (sums.empty()) {
    sums.assign(1 + terms.parts.size(), 0.0);
    for (const auto& [name, value] : terms.parts) names.push_back(name);
  }
  COHORT_CHECK(sums.size() == 1 + terms.parts.size(),
               "a loss gave {} parts after {}",
               terms.parts.size(),
               sums.size() - 1);
  sums[0] += terms.total.item<double>();
  for (size_t i = 0; i < terms.parts.size(); ++i)
    sums[i + 1] += terms.parts[i].second.item<double>();
}

void reduce_terms(const std::vector<std::string>& names,
                  const std::vector<double>& sums,
                  const distributed::Mesh& mesh,
                  StepReport& report) {
  at::Tensor all = at::tensor(sums, at::kDouble);
  mesh.dp->all_reduce(all);
  report.loss = all[0].item<double>();
  for (size_t i = 0; i < names.size(); ++i)
    report.parts.emplace_back(names[i], all[static_cast<int64_t>(i) + 1].item<double>());
}

/// Sums the loads over ranks, in one message for all layers.
void reduce_loads(const std::vector<MoeLayer*>& layers,
                  const distributed::Mesh& mesh,
                  StepReport& report) {
  if (layers.empty()) return;
  std::vector<at::Tensor> local;
  for (auto* layer : layers) local.push_back(layer->load());
  at::Tensor all = at::stack(local);
  mesh.dp->all_reduce(all);
  for (size_t i = 0; i < layers.size(); ++i) {
    report.loads.push_back(all[static_cast<int64_t>(i)]);
    report.max_violation += max_violation(report.loads.back()) / static_cast<double>(layers.size());
  }
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
  std::vector<double> sums;
  for (int64_t i = 0; i < micro_batches; ++i) {
    if (i + 1 == micro_batches) optimizer.expect_last_backward();
    const LossTerms terms = loss(i);
    terms.total.backward();
    add_terms(terms, names, sums);
  }

  StepReport report;
  report.update = optimizer.step(options.lr);
  reduce_terms(names, sums, mesh, report);
  reduce_loads(layers, mesh, report);
  if (!report.update.skipped && options.bias_update_speed != 0)
    for (size_t i = 0; i < layers.size(); ++i)
      if (layers[i]->bias().defined())
        update_bias(layers[i]->bias(), report.loads[i], options.bias_update_speed);
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
