// DESIGN 3.3: no mesh, accumulation or recomputation changes what a step computes. Every rank runs the
// whole batch alone as the reference, and then its share of it together with the others.
#include <cmath>

#include "moe/pretrain_loss.h"
#include "moe/train_step.h"
#include "tests/catch.h"
#include "tests/moe/tiny.h"

using namespace cohort;

namespace {

struct Setting {
  std::string name;
  int ep;
  int64_t micro_batch;
  bool recompute;
};

struct Case {
  std::string name;
  core::ModelConfig model = tests::tiny_model();
  /// Selection biases at the start: pushes tokens away from or towards experts.
  std::vector<double> bias;
  std::string optimizer = "adamw";
  at::ScalarType dtype = at::kDouble;
};

struct Trace {
  std::vector<double> losses, norms, parts;
  std::map<std::string, at::Tensor> gradients;  ///< Of the last step, by name.
  std::vector<at::Tensor> biases, loads;
};

Trace train(const Case& c,
            const distributed::Mesh& mesh,
            int64_t micro_batch,
            bool recompute,
            int steps) {
  moe::Transformer model(c.model, mesh.ep, 7, c.dtype);
  for (auto* layer : model.moe_layers())
    if (!c.bias.empty()) layer->bias().copy_(at::tensor(c.bias, at::kDouble));
  core::OptimizerConfig optimizer_config;
  optimizer_config.name = c.optimizer;
  optimizer_config.bucket_mb = 0.01;  // many buckets
  distributed::ShardedOptimizer optimizer(model.parameters(), mesh, optimizer_config);
  core::TrainConfig train_config;
  train_config.recompute = recompute ? "layer" : "none";
  core::RouterConfig router;
  router.sequence_loss_alpha = 0.01;
  Trace trace;
  for (int step = 0; step < steps; ++step) {
    const auto rows = tests::random_rows(step + 1, 8, 16, c.model.vocab_size);
    const auto batches = tests::share_of(rows, mesh.shape.dp_rank, mesh.shape.dp, micro_batch);
    const auto loss = moe::pretrain_loss(batches, c.model, router, train_config, mesh);
    const auto report = moe::train_step(model, optimizer, mesh, batches, loss, {1e-3, 0.01});
    REQUIRE(!report.update.skipped);
    trace.losses.push_back(report.loss);
    trace.norms.push_back(report.update.grad_norm);
    for (const auto& [name, value] : report.parts) trace.parts.push_back(value);
    trace.loads = report.loads;
  }
  for (const auto& parameter : model.parameters())
    for (const auto& part : parameter.parts)
      trace.gradients[part.name] = optimizer.reduced_gradient(part.name);
  for (auto* layer : model.moe_layers()) trace.biases.push_back(layer->bias().clone());
  return trace;
}

void check_close(const std::vector<double>& a, const std::vector<double>& b, double tolerance) {
  REQUIRE(a.size() == b.size());
  for (size_t i = 0; i < a.size(); ++i) CHECK(std::abs(a[i] - b[i]) <= tolerance * (std::abs(b[i]) + 1e-6));
}

/// `ours` holds this rank's experts only; each of its tensors is compared.
void check_equal(const Trace& ours, const Trace& reference, double tolerance) {
  check_close(ours.losses, reference.losses, tolerance);
  check_close(ours.norms, reference.norms, tolerance);
  check_close(ours.parts, reference.parts, tolerance);
  for (const auto& [name, gradient] : ours.gradients) {
    INFO(name);
    const at::Tensor& theirs = reference.gradients.at(name);
    const double scale = theirs.abs().max().item<double>();
    CHECK((gradient - theirs).abs().max().item<double>() <= tolerance * scale + 1e-16);
  }
  for (size_t i = 0; i < ours.biases.size(); ++i) {
    CHECK(at::equal(ours.biases[i], reference.biases[i]));
    CHECK(at::equal(ours.loads[i], reference.loads[i]));
  }
}

std::vector<Case> cases() {
  std::vector<Case> all{{"as it comes"}};
  all.push_back({"with Muon"});
  all.back().optimizer = "muon";
  all.push_back({"an expert gets no token"});
  all.back().bias = {0, 0, 0, -9, 0, 0, 0, 0};
  all.push_back({"one rank's experts get none"});
  all.back().bias = {-9, -9, -9, -9, 0, 0, 0, 0};
  all.push_back({"all tokens to one expert"});
  all.back().model.num_experts_per_tok = 1;
  all.back().bias = {0, 0, 0, 0, 0, 9, 0, 0};
  return all;
}

void check_matrix(int world, const std::vector<int>& eps) {
  for (const auto& c : cases()) {
    const Trace reference = train(c, distributed::make_local_mesh(), 8, false, 5);
    if (c.name == "all tokens to one expert")
      for (const auto& load : reference.loads) REQUIRE(load[5].item<int64_t>() == load.sum().item<int64_t>());
    if (c.name == "one rank's experts get none")
      for (const auto& load : reference.loads) REQUIRE(load.narrow(0, 0, 4).sum().item<int64_t>() == 0);
    for (int ep : eps) {
      core::MeshConfig config;
      config.ep = ep;
      const auto mesh = distributed::make_mesh(config);
      REQUIRE(mesh.shape.world == world);
      for (int accumulation : {1, 2})
        for (bool recompute : {false, true}) {
          INFO(c.name << ": dp " << world << ", ep " << ep << ", accumulation " << accumulation
                      << ", recompute " << recompute);
          check_equal(train(c, mesh, 8 / world / accumulation, recompute, 5), reference, 1e-10);
        }
    }
  }
}

/// Rounding in fp32 grows over the steps: 1e-5 of the loss after 50.
void check_long(const std::vector<int>& eps) {
  for (const std::string optimizer : {"adamw", "muon"}) {
    Case c{"fp32"};
    c.optimizer = optimizer;
    c.dtype = at::kFloat;
    const Trace reference = train(c, distributed::make_local_mesh(), 8, false, 50);
    CHECK(reference.losses.back() < reference.losses.front());
    for (int ep : eps) {
      INFO(optimizer << ", ep " << ep);
      core::MeshConfig config;
      config.ep = ep;
      const auto mesh = distributed::make_mesh(config);
      const Trace ours = train(c, mesh, 1, ep == 2, 50);
      for (size_t i = 0; i < ours.losses.size(); ++i) {
        INFO("step " << i + 1);
        CHECK(std::abs(ours.losses[i] - reference.losses[i]) < 1e-5);
      }
    }
  }
}

}  // namespace

TEST_CASE("dp 1: accumulation and recomputation change nothing", "[moe][invariance][ranks1]") {
  check_matrix(1, {1});
}
TEST_CASE("dp 2: meshes ep 1 and 2 equal one rank", "[moe][invariance][ranks2]") { check_matrix(2, {1, 2}); }
TEST_CASE("dp 4: meshes ep 2 and 4 equal one rank", "[moe][invariance][ranks4]") { check_matrix(4, {2, 4}); }

TEST_CASE("dp 1: 50 fp32 steps", "[moe][invariance][ranks1]") { check_long({1}); }
TEST_CASE("dp 2: 50 fp32 steps equal one rank's", "[moe][invariance][ranks2]") { check_long({1, 2}); }
TEST_CASE("dp 4: 50 fp32 steps equal one rank's", "[moe][invariance][ranks4]") { check_long({2, 4}); }
