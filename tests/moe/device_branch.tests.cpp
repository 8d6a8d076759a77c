// Routing, dispatch and whole training steps through the device branch, run on the CPU.
#include "tests/moe/device_branch.h"

#include "core/nn/rope.h"
#include "moe/dispatch.h"
#include "moe/router.h"

using namespace cohort;
using namespace cohort::tests;

TEST_CASE("Device branch: routing chooses and weighs as the CPU does", "[moe-device]") {
  for (const char* scoring : {"sigmoid", "softmax"})
    for (const auto& [groups, kept] : {std::pair<int64_t, int64_t>{1, 1}, {4, 2}, {12, 5}, {3, 1}})
      for (const bool normalise : {false, true}) {
        INFO(scoring << ", " << kept << " of " << groups << " groups, normalise " << normalise);
        const auto config = router_config(scoring, groups, kept, normalise);
        // Coarse values: many are equal, and the lower index must win.
        const auto logits = random({20, 12}).mul(2).round().div(2);
        const auto bias = random({12}).mul(2).round().div(8);
        const auto d_gate = random({20, 3});
        const auto run = [&](const at::Tensor& given) {
          const auto x = leaves({logits})[0];
          const auto r = moe::route(x, bias, 4, config, given);
          const auto total = (r.gate_TK * d_gate).sum() + 0.7 * r.sequence_loss;
          return std::vector{r.expert_TK,
                             r.gate_TK.detach(),
                             r.sequence_loss.detach(),
                             torch::autograd::grad({total}, {x})[0]};
        };
        const auto given = at::tensor({0, 5, 11}, at::kLong).repeat({20, 1});
        const auto expected = run({}), replayed = run(given);
        const DeviceBranch branch;
        for (const auto& [found, wanted] : {std::pair{run({}), expected}, {run(given), replayed}}) {
          CHECK(at::equal(found[0], wanted[0]));
          for (size_t i = 1; i < 4; ++i) CHECK(error_of(found[i], wanted[i]) < 1e-12);
        }
      }
}

TEST_CASE("Device branch: a NaN affinity counts as the least", "[moe-device]") {
  auto logits = random({5, 12});
  logits.select(1, 4).fill_(std::nan(""));
  const auto config = router_config("sigmoid", 1, 1, true);
  const auto expected = moe::route(logits, {}, 1, config).expert_TK;
  const DeviceBranch branch;
  CHECK(at::equal(moe::route(logits, {}, 1, config).expert_TK, expected));
}

TEST_CASE("Device branch: dispatch and combine equal the CPU's", "[moe-device]") {
  const auto ep = distributed::local_communicator("ep");
  const auto expert = at::randint(0, 5, {30, 3}, at::kLong);
  for (const auto& [dtype, bound] :
       {std::pair{at::kDouble, 1e-13}, {at::kFloat, 1e-6}, {at::kBFloat16, 1e-2}}) {
    const auto x = random({30, 8}, dtype), d_out = random({30, 8}, dtype);
    const auto gate = random({30, 3}, dtype == at::kDouble ? at::kDouble : at::kFloat);
    const auto run = [&] {
      const auto plan = moe::plan_dispatch(expert, 6, ep);
      const auto in =
          std::vector{x.clone().set_requires_grad(true), gate.clone().set_requires_grad(true)};
      const auto out = moe::combine(moe::dispatch(in[0], plan) * 2, in[1], plan);
      auto all = torch::autograd::grad({out}, in, {d_out});
      all.insert(all.end(), {out.detach(), plan->pair_at, plan->place_of, plan->load_E});
      all.push_back(at::tensor(plan->expert_rows, at::kLong));
      return all;
    };
    const auto expected = run();
    const DeviceBranch branch;
    const auto found = run();
    for (size_t i = 0; i < found.size(); ++i) {
      INFO("result " << i);
      CHECK(found[i].scalar_type() == expected[i].scalar_type());
      CHECK(error_of(found[i], expected[i]) < (i < 3 ? bound : 1e-30));
    }
  }
}

TEST_CASE("Device branch: training steps equal the CPU's", "[moe-device]") {
  const auto mesh = distributed::make_local_mesh();
  for (const auto& [dtype, tolerance] : {std::pair{at::kDouble, 1e-10}, {at::kFloat, 2e-5}})
    for (const char* optimizer : {"adamw", "muon"})
      for (const bool recompute : {false, true}) {
        INFO(at::toString(dtype) << ", " << optimizer << ", recompute " << recompute);
        TrainingCase c;
        c.dtype = dtype;
        c.optimizer = optimizer;
        c.recompute = recompute;
        const Trained expected = train(c, mesh);
        CHECK(expected.copies == 0);
        const DeviceBranch branch;
        check_alike(train(c, mesh), expected, tolerance);
      }
}

TEST_CASE("Device branch: a model of grouped-query attention trains alike", "[moe-device]") {
  TrainingCase c;
  c.model.kv_lora_rank = c.model.q_lora_rank = 0;
  c.model.head_dim = 8;
  c.model.num_key_value_heads = 1;
  c.model.qk_norm = true;
  c.model.rope_interleave = false;
  const auto mesh = distributed::make_local_mesh();
  const Trained expected = train(c, mesh);
  const DeviceBranch branch;
  check_alike(train(c, mesh), expected, 1e-10);
}

TEST_CASE("Device branch: packed sequences equal the CPU's, at a depth without tokens too",
          "[moe-device]") {
  const auto mesh = distributed::make_local_mesh();
  using Runs = std::vector<core::AttentionLayout::Run>;
  // Two prediction modules: the second of these layouts leaves none of them a token.
  for (const auto& [tokens, runs] :
       {std::pair{9, Runs{{0, 0, 5, 0}, {0, 5, 4, 0}}}, {2, Runs{{0, 0, 1, 0}, {0, 1, 1, 0}}}}) {
    const core::AttentionLayout layout{1, tokens, runs, false, {}};
    const auto ids = at::randint(0, 61, {1, tokens}, at::kLong);
    const auto run = [&, tokens = tokens](bool recompute) {
      moe::Transformer model(tiny_model(), mesh.ep, 7, at::kDouble);
      const auto out = model.forward(ids, layout, {true, recompute, true});
      REQUIRE(out.mtp_hidden.size() == 2);
      CHECK(out.mtp_hidden[0].size(1) == std::max(0, tokens - 2));
      // Of a normalised row the squares would always sum to the same.
      auto loss = out.hidden.sin().sum();
      // Over no token the balance loss has no value, and SFT does not use it.
      if (tokens > 2) loss = loss + out.sequence_loss;
      for (const auto& hidden : out.mtp_hidden) loss = loss + hidden.sin().sum();
      loss.backward();
      std::vector<at::Tensor> all{loss.detach()};
      for (const auto& parameter : model.parameters())
        all.push_back(parameter.value.grad().defined() ? parameter.value.grad()
                                                       : at::zeros_like(parameter.value));
      return all;
    };
    const auto expected = run(false);
    const DeviceBranch branch;
    for (const bool recompute : {false, true}) {
      INFO(tokens << " tokens, recompute " << recompute);
      const auto found = run(recompute);
      for (size_t i = 0; i < found.size(); ++i) {
        INFO("result " << i);
        // Not relative: a token that sees itself alone has rounding for a gradient of its queries.
        CHECK((found[i] - expected[i]).abs().max().item<double>() < 1e-10);
      }
    }
  }
}

TEST_CASE("Device branch: a step waits for the device where it must and nowhere else",
          "[moe-device]") {
  const auto mesh = distributed::make_local_mesh();
  const DeviceBranch branch;
  for (const bool recompute : {false, true})
    for (const int64_t micro_batch : {4, 2, 1}) {
      TrainingCase c;
      c.recompute = recompute;
      c.micro_batch = micro_batch;
      const Trained trained = train(c, mesh);
      INFO("micro-batches of " << micro_batch << ", recompute " << recompute);
      // The counts of every dispatch; the gradient norm, the loss terms and the loads once each.
      const auto layers = static_cast<int64_t>(trained.loads.size());
      CHECK(trained.copies == layers * c.rows / micro_batch + 3);
      CHECK(trained.waits == 0);
    }
}

TEST_CASE("Waiting for a device is seen where it happens", "[moe-device]") {
  const Waits waits;
  CHECK(Waits::count() == 0);
  at::ones({2}).sum().item<double>();
  at::ones({2}).nonzero();
  CHECK(Waits::count() == 2);
}

TEST_CASE("Device branch: bf16 weights have fp32 masters, moments, gradients and router",
          "[moe-device]") {
  TrainingCase c;
  c.dtype = at::kBFloat16;
  const auto mesh = distributed::make_local_mesh();
  const Trained exact = train(TrainingCase{}, mesh), on_cpu = train(c, mesh);
  const DeviceBranch branch;
  const Trained on_device = train(c, mesh);
  for (size_t i = 0; i < exact.losses.size(); ++i) {
    CHECK(on_device.losses[i] == Approx(exact.losses[i]).epsilon(2e-2));
    CHECK(on_device.losses[i] == Approx(on_cpu.losses[i]).epsilon(1e-2));
    CHECK(on_device.norms[i] == Approx(on_cpu.norms[i]).epsilon(5e-2));
  }
  for (const auto& [name, gradient] : on_device.gradients)
    CHECK(gradient.scalar_type() == at::kFloat);
  for (const auto& [name, weight] : on_device.weights) CHECK(weight.scalar_type() == at::kBFloat16);
  for (const auto& bias : on_device.biases) CHECK(bias.scalar_type() == at::kFloat);

  moe::Transformer model(c.model, mesh.ep, 7, c.dtype);
  distributed::ShardedOptimizer optimizer(model.parameters(), mesh, {});
  for (const auto& slice : optimizer.owned_slices())
    for (const auto& [kind, values] : slice.state) CHECK(values.scalar_type() == at::kFloat);
}
