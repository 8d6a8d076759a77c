// Training a tiny model in either branch.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "distributed/sharded_optimizer.h"
#include "moe/pretrain_loss.h"
#include "moe/train_step.h"
#include "tests/catch.h"
#include "tests/core/gradients.h"
#include "tests/device_branch.h"
#include "tests/moe/tiny.h"

namespace cohort::tests {

/// Three of twelve experts a token.
inline core::ModelConfig router_config(const char* scoring,
                                       int64_t groups,
                                       int64_t kept,
                                       bool normalise) {
  core::ModelConfig c;
  c.n_routed_experts = 12;
  c.num_experts_per_tok = 3;
  c.n_group = groups;
  c.topk_group = kept;
  c.scoring_func = scoring;
  c.norm_topk_prob = normalise;
  c.routed_scaling_factor = 2.5;
  return c;
}

struct Trained {
  std::vector<double> losses, norms, parts;
  std::map<std::string, at::Tensor> gradients, weights;  ///< By name, after the last step.
  std::vector<at::Tensor> loads, biases;
  int64_t copies = 0, waits = 0;  ///< Of the last step.
};

struct TrainingCase {
  core::ModelConfig model = tiny_model();
  at::ScalarType dtype = at::kDouble;
  std::string optimizer = "adamw";
  bool recompute = false;
  int64_t micro_batch = 2, rows = 4, steps = 3;
};

/// Whatever branch is on.
inline Trained train(const TrainingCase& c, const distributed::Mesh& mesh) {
  moe::Transformer model(c.model, mesh.ep, 7, c.dtype);
  core::OptimizerConfig settings;
  settings.name = c.optimizer;
  settings.bucket_mb = 0.01;
  distributed::ShardedOptimizer optimizer(model.parameters(), mesh, settings);
  core::TrainConfig train;
  train.recompute = c.recompute ? "layer" : "none";
  core::RouterConfig router;
  router.sequence_loss_alpha = 0.01;
  Trained trained;
  for (int64_t step = 0; step < c.steps; ++step) {
    const auto rows = random_rows(step + 1, c.rows, 16, c.model.vocab_size);
    const auto batches = share_of(rows, mesh.shape.dp_rank, mesh.shape.dp, c.micro_batch);
    const auto loss = moe::pretrain_loss(batches, c.model, router, train, mesh);
    const int64_t copies = core::num_host_copies();
    const Waits waits;
    const auto report = moe::train_step(model, optimizer, mesh, batches, loss, {1e-3, 0.01});
    trained.waits = Waits::count();
    trained.copies = core::num_host_copies() - copies;
    trained.losses.push_back(report.loss);
    trained.norms.push_back(report.update.grad_norm);
    for (const auto& [name, value] : report.parts) trained.parts.push_back(value);
    trained.loads = report.loads;
  }
  for (const auto& parameter : model.parameters()) {
    const auto flat = parameter.value.detach().flatten();
    for (const auto& part : parameter.parts) {
      trained.gradients[part.name] = optimizer.reduced_gradient(part.name).clone();
      trained.weights[part.name] =
          flat.narrow(0, part.offset, c10::multiply_integers(part.shape)).clone();
    }
  }
  for (auto* layer : model.moe_layers()) trained.biases.push_back(layer->bias().clone());
  return trained;
}

/// `found` may hold only some of the experts.
inline void check_alike(const Trained& found, const Trained& expected, double tolerance) {
  const auto check_close = [&](const std::vector<double>& a, const std::vector<double>& b) {
    REQUIRE(a.size() == b.size());
    for (size_t i = 0; i < a.size(); ++i)
      CHECK(a[i] == Approx(b[i]).epsilon(tolerance).margin(tolerance));
  };
  check_close(found.losses, expected.losses);
  check_close(found.norms, expected.norms);
  check_close(found.parts, expected.parts);
  for (const auto& [name, gradient] : found.gradients) {
    INFO("gradient of " << name);
    CHECK(error_of(gradient, expected.gradients.at(name)) < 20 * tolerance);
  }
  for (const auto& [name, weight] : found.weights) {
    INFO(name);
    CHECK(error_of(weight, expected.weights.at(name)) < 20 * tolerance);
  }
  for (size_t i = 0; i < found.loads.size(); ++i) {
    CHECK(at::equal(found.loads[i], expected.loads[i]));
    CHECK(at::equal(found.biases[i], expected.biases[i]));
  }
}

}  // namespace cohort::tests
