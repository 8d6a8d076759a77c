// Routing, dispatch and training steps with the device kernels, run on the host: that operations
// hand over the right pointers, sizes and gradients. The kernels themselves:
// tests/kernels/device_*.
#include "tests/device_kernels.h"

#include "moe/dispatch.h"
#include "moe/router.h"
#include "tests/moe/device_branch.h"

using namespace cohort;
using namespace cohort::tests;
using kernels::DeviceTable;

TEST_CASE("Device kernels: routing and its gradient equal the CPU's", "[moe-kernels]") {
  for (const char* scoring : {"sigmoid", "softmax"})
    for (const auto& [groups, kept] : {std::pair<int64_t, int64_t>{1, 1}, {4, 2}, {3, 1}})
      for (const bool biased : {false, true}) {
        INFO(scoring << ", " << kept << " of " << groups << " groups, bias " << biased);
        const auto config = router_config(scoring, groups, kept, biased);
        const auto logits = random({20, 12}, at::kFloat), d_gate = random({20, 3}, at::kFloat);
        const at::Tensor bias = biased ? random({12}, at::kFloat) : at::Tensor();
        const auto run = [&](double of_loss) {
          const auto x = leaves({logits}, at::kFloat)[0];
          const auto r = moe::route(x, bias, 4, config);
          auto total = (r.gate_TK * d_gate).sum();
          if (of_loss != 0) total = total + of_loss * r.sequence_loss;
          return std::vector{r.expert_TK,
                             r.gate_TK.detach(),
                             r.sequence_loss.detach(),
                             torch::autograd::grad({total}, {x})[0]};
        };
        for (const double of_loss : {0.0, 0.7}) {
          const auto expected = run(of_loss);
          const EmulatedKernels kernels;
          const auto found = run(of_loss);
          CHECK(kernels.calls<&DeviceTable::route>() == 1);
          CHECK(kernels.calls<&DeviceTable::route_backward>() == 1);
          CHECK(at::equal(found[0], expected[0]));
          for (size_t i = 1; i < 4; ++i) CHECK(error_of(found[i], expected[i]) < 2e-6);
        }
      }
}

TEST_CASE("Device kernels: dispatch, combine and their gradients equal the CPU's",
          "[moe-kernels]") {
  const auto ep = distributed::local_communicator("ep");
  const auto expert = at::randint(0, 5, {30, 3}, at::kLong);
  for (const int64_t width : {8, 5})
    for (const auto& [dtype, bound] : {std::pair{at::kFloat, 1e-6}, {at::kBFloat16, 1e-2}}) {
      const auto x = random({30, width}, dtype), d_out = random({30, width}, dtype);
      const auto gate = random({30, 3}, at::kFloat);
      const auto run = [&] {
        const auto plan = moe::plan_dispatch(expert, 6, ep);
        const auto in =
            std::vector{x.clone().set_requires_grad(true), gate.clone().set_requires_grad(true)};
        const auto out = moe::combine(moe::dispatch(in[0], plan) * 2, in[1], plan);
        auto all = torch::autograd::grad({out}, in, {d_out});
        all.insert(all.end(), {out.detach(), plan->pair_at, plan->place_of, plan->load_E});
        return all;
      };
      const auto expected = run();
      const EmulatedKernels kernels;
      const auto found = run();
      CHECK(kernels.calls<&DeviceTable::sort_pairs>() == 1);
      CHECK(kernels.calls<&DeviceTable::gather_rows>() == 1);
      CHECK(kernels.calls<&DeviceTable::combine_rows>() == 2);  // the second is dispatch's gradient
      CHECK(kernels.calls<&DeviceTable::combine_rows_backward>() == 1);
      for (size_t i = 0; i < found.size(); ++i) {
        INFO("result " << i << ", width " << width);
        CHECK(error_of(found[i], expected[i]) < (i < 3 ? bound : 1e-30));
      }
    }
}

TEST_CASE("Device kernels: training steps in fp32 equal the CPU's", "[moe-kernels]") {
  const auto mesh = distributed::make_local_mesh();
  for (const bool recompute : {false, true}) {
    TrainingCase c;
    c.dtype = at::kFloat;
    c.recompute = recompute;
    const Trained expected = train(c, mesh);
    const EmulatedKernels kernels;
    const Trained found = train(c, mesh);
    check_alike(found, expected, 2e-5);
    CHECK(kernels.calls<&DeviceTable::route>() > 0);
    // A layer computed anew is told its experts, which is LibTorch's part.
    CHECK((kernels.calls<&DeviceTable::route_backward>() > 0) == !recompute);
    // The same waits as LibTorch's operations have.
    const auto layers = static_cast<int64_t>(found.loads.size());
    CHECK(found.copies == layers * c.rows / c.micro_batch + 3);
    CHECK(found.waits == 0);
  }
}

TEST_CASE("Device kernels: training in bf16 goes as on the CPU", "[moe-kernels]") {
  const auto mesh = distributed::make_local_mesh();
  TrainingCase c;
  c.dtype = at::kBFloat16;
  c.model.qk_nope_head_dim = c.model.qk_rope_head_dim =
      8;  // heads of 16 and 16: attention has a kernel
  c.model.v_head_dim = 16;
  c.steps = 2;
  const Trained expected = train(c, mesh);
  const EmulatedKernels kernels;
  const Trained found = train(c, mesh);
  CHECK(kernels.calls<&DeviceTable::attention_forward>() > 0);
  CHECK(kernels.calls<&DeviceTable::attention_backward>() ==
        kernels.calls<&DeviceTable::attention_forward>());
  for (size_t i = 0; i < found.losses.size(); ++i)
    CHECK(found.losses[i] == Approx(expected.losses[i]).epsilon(5e-3));
  for (size_t i = 0; i < found.norms.size(); ++i)
    CHECK(found.norms[i] == Approx(expected.norms[i]).epsilon(5e-2));
}

TEST_CASE("Device kernels: decoding over the cache of latents equals the CPU's", "[moe-kernels]") {
  const auto mesh = distributed::make_local_mesh();
  auto config = tiny_model();
  config.kv_lora_rank = 256;
  config.qk_rope_head_dim = 32;
  config.num_nextn_predict_layers = 0;
  moe::Transformer model(config, mesh.ep, 7, at::kFloat);
  const int64_t tokens = 9;
  const auto ids = at::randint(0, config.vocab_size, {tokens}, at::kLong);
  const auto decoded = [&] {
    auto cache = model.make_cache(2 * tokens);
    core::DecodeLayout layout;
    // Two spans: the sequence's rows lie in two pieces of the cache.
    layout.position = at::arange(tokens, at::kLong);
    layout.slot = at::cat({at::arange(4, at::kLong), at::arange(10, 10 + tokens - 4, at::kLong)});
    std::vector<int64_t> spans, first{0};
    for (int64_t t = 0; t < tokens; ++t) {
      spans.insert(spans.end(), {0, std::min<int64_t>(t + 1, 4)});
      if (t >= 4) spans.insert(spans.end(), {10, t - 3});
      first.push_back(static_cast<int64_t>(spans.size()) / 2);
    }
    layout.spans = at::tensor(spans, at::kLong).view({-1, 2});
    layout.first_span = at::tensor(first, at::kLong);
    return model.decode(ids, layout, cache, nullptr);
  };
  const auto expected = decoded();
  const EmulatedKernels kernels;
  const auto found = decoded();
  CHECK(kernels.calls<&DeviceTable::attention_decode>() == config.num_hidden_layers);
  CHECK(error_of(found, expected) < 2e-5);
}
