// The updates of a rollout.
#include "rl/grpo_step.h"

#include "moe/model_state.h"
#include "tests/catch.h"
#include "tests/rl/policy_fakes.h"

using namespace cohort;

namespace {

struct Fixture {
  distributed::Mesh mesh = distributed::make_local_mesh();
  moe::Transformer model{tests::policy_model(), mesh.ep, 3, at::kFloat};
  tests::DrawnSequences drawn;
  core::OptimizerConfig optimizer_config;
  distributed::ShardedOptimizer optimizer;

  explicit Fixture(double temperature = 1)
      : drawn(model, mesh.ep, temperature), optimizer(model.parameters(), mesh, plain()) {}

  static core::OptimizerConfig plain() {
    core::OptimizerConfig config;
    config.weight_decay = 0;
    config.clip = 0;
    return config;
  }

  rl::GrpoStepReport step(const rl::GrpoStepOptions& options, moe::Transformer* reference = {}) {
    return rl::grpo_step(model, optimizer, mesh, reference, drawn.sequences, options);
  }

  at::Tensor gradient(const std::string& name = "model.layers.0.self_attn.o_proj.weight") {
    return optimizer.reduced_gradient(name);
  }
};

rl::GrpoStepOptions options() {
  rl::GrpoStepOptions out;
  out.group_size = 4;
  out.micro_batch = 8;
  out.step.lr = 1e-2;
  return out;
}

}  // namespace

TEST_CASE("the first update computes what sampling computed", "[rl-grpo]") {
  for (const double temperature : {1.0, 0.7}) {
    Fixture fixture(temperature);
    auto settings = options();
    settings.temperature = temperature;
    settings.passes = 2;  // later updates do not count
    const auto report = fixture.step(settings);
    CHECK(report.logp_drift_max < 1e-5);
    CHECK(report.routing_mismatched == 0);
    int64_t inputs = 0;
    for (const auto& one : fixture.drawn.sequences)
      inputs += static_cast<int64_t>(one.prompt.size()) + one.tokens() - 1;
    CHECK(report.routing_compared == 2 * inputs);  // two MoE layers
    CHECK(report.updates.size() == 2);
  }
}

TEST_CASE("a temperature that is not that of sampling is a drift", "[rl-grpo]") {
  Fixture fixture(0.7);
  CHECK(fixture.step(options()).logp_drift_max > 1e-2);
}

TEST_CASE("micro-batches change nothing but the memory", "[rl-grpo]") {
  Fixture whole;
  auto settings = options();
  const auto expected = whole.step(settings);
  for (const int64_t micro_batch : {1, 3}) {
    Fixture pieces;
    settings.micro_batch = micro_batch;
    const auto report = pieces.step(settings);
    CHECK(report.loss == Approx(expected.loss).epsilon(1e-5).margin(1e-6));
    CHECK(report.grad_norm == Approx(expected.grad_norm).epsilon(1e-4));
    CHECK(at::allclose(pieces.gradient(), whole.gradient(), 1e-3, 1e-6));
    for (size_t i = 0; i < report.loads.size(); ++i)
      CHECK(at::equal(report.loads[i], expected.loads[i]));
  }
}

TEST_CASE("recomputing layers changes nothing but the memory", "[rl-grpo]") {
  Fixture kept, again;
  auto settings = options();
  const auto expected = kept.step(settings);
  settings.recompute = true;
  const auto report = again.step(settings);
  CHECK(report.loss == Approx(expected.loss).epsilon(1e-5).margin(1e-6));
  CHECK(report.routing_compared == expected.routing_compared);
  CHECK(at::allclose(again.gradient(), kept.gradient(), 1e-3, 1e-6));
  for (size_t i = 0; i < report.loads.size(); ++i)
    CHECK(at::equal(report.loads[i], expected.loads[i]));
}

TEST_CASE("masked completions teach nothing", "[rl-grpo]") {
  Fixture fixture;
  for (auto& one : fixture.drawn.sequences) one.counts = false;
  const auto report = fixture.step(options());
  CHECK(report.loss == 0);
  CHECK(report.grad_norm == 0);
}

TEST_CASE("without advantages nothing is learned", "[rl-grpo]") {
  Fixture fixture;
  for (auto& one : fixture.drawn.sequences) one.advantage = 0;
  CHECK(fixture.step(options()).grad_norm == 0);
}

TEST_CASE("mini-batches are updates of their own", "[rl-grpo]") {
  Fixture fixture;
  auto settings = options();
  settings.mini_batches = 2;
  settings.passes = 3;
  settings.step.lr = 0.05;  // far enough to be clipped
  const auto report = fixture.step(settings);
  CHECK(report.updates.size() == 6);
  CHECK(report.clip_fraction > 0);
  CHECK(fixture.optimizer.num_updates() == 6);
  // The first mini-batch is the first group.
  int64_t inputs = 0;
  for (size_t i = 0; i < 4; ++i)
    inputs += static_cast<int64_t>(fixture.drawn.sequences[i].prompt.size()) +
              fixture.drawn.sequences[i].tokens() - 1;
  CHECK(report.routing_compared == 2 * inputs);
}

TEST_CASE("the policy is not away from a reference that is itself", "[rl-grpo]") {
  Fixture fixture;
  moe::Transformer reference(tests::policy_model(), fixture.mesh.ep, 99, at::kFloat);
  for (auto& parameter : reference.parameters()) parameter.value.set_requires_grad(false);
  auto settings = options();
  settings.loss.beta = 0.1;
  moe::copy_weights(fixture.model, reference);
  CHECK(fixture.step(settings, &reference).kl < 1e-9);
  const auto moved = fixture.step(settings, &reference);
  CHECK(moved.kl > 1e-6);
}
