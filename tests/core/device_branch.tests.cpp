// The device branch of every operation, run on the CPU, against the CPU's kernels.
#include "tests/device_branch.h"

#include "core/base/error.h"
#include "core/nn/attention.h"
#include "core/nn/attention_op.h"
#include "core/nn/cross_entropy.h"
#include "core/nn/head_linear.h"
#include "core/nn/linear.h"
#include "core/nn/rms_norm.h"
#include "core/nn/rope.h"
#include "core/nn/swiglu.h"
#include "core/nn/token_log_probs.h"
#include "core/optim/adamw.h"
#include "core/optim/gradient_norm.h"
#include "core/optim/muon.h"
#include "tests/catch.h"
#include "tests/core/gradients.h"

using namespace cohort;
using namespace cohort::tests;

namespace {

constexpr std::pair<at::ScalarType, double> kPrecisions[] = {
    {at::kDouble, 1e-12}, {at::kFloat, 5e-6}, {at::kBFloat16, 2e-2}};

/// f and its gradients in both branches. `factor` loosens the bound of each precision.
void compare(const char* what,
             const Function& f,
             const std::vector<at::Tensor>& inputs,
             double factor = 1) {
  for (const auto& [dtype, bound] : kPrecisions) {
    INFO(what << " in " << at::toString(dtype));
    const auto on_cpu = leaves(inputs, dtype), on_device = leaves(inputs, dtype);
    const auto out = f(on_cpu);
    const auto d_out = at::randn(out.sizes(), at::kDouble);
    const auto expected = gradients_of(f, on_cpu, d_out);
    const DeviceBranch branch;
    const auto found = f(on_device);
    CHECK(found.scalar_type() == out.scalar_type());
    CHECK(found.is_contiguous() == out.is_contiguous());
    CHECK(error_of(found, out) < factor * bound);
    const auto gradients = gradients_of(f, on_device, d_out);
    for (size_t i = 0; i < gradients.size(); ++i) {
      INFO("gradient of input " << i);
      CHECK(gradients[i].scalar_type() == dtype);
      CHECK(error_of(gradients[i], expected[i]) < factor * bound);
    }
  }
}

/// Two rows of documents of uneven length.
core::AttentionLayout two_rows(int64_t S) {
  auto ids = at::zeros({2, S}, at::kLong);
  ids[0].slice(0, 3).fill_(1);
  ids[1].slice(0, S - 1).fill_(4);
  return core::attention_layout(2, S, ids);
}

core::RopeTable table(int64_t dim, int64_t length, at::ScalarType dtype) {
  return core::rope_table({}, dim, length, dtype);
}

}  // namespace

TEST_CASE("Device branch: norms, SwiGLU and rotation equal the CPU's", "[core-device]") {
  compare("rms_norm",
          [](const auto& in) { return core::rms_norm(in[0], in[1], 1e-6); },
          {random({3, 5, 24}), random({24})});
  compare("rms_norm of a slice",
          [](const auto& in) { return core::rms_norm(in[0].narrow(1, 2, 8), in[1], 1e-5); },
          {random({7, 24}), random({8})});
  compare("swiglu", [](const auto& in) { return core::swiglu(in[0]); }, {random({9, 2, 14})});
  for (const bool interleave : {false, true})
    compare(interleave ? "rope in pairs" : "rope in halves",
            [&](const auto& in) {
              return core::apply_rope(in[0], table(10, 9, in[0].scalar_type()), interleave);
            },
            {random({2, 6, 3, 10})});
}

TEST_CASE("Device branch: attention of every form equals the CPU's", "[core-device]") {
  const int64_t S = 11;
  for (const auto& layout : {core::attention_layout(2, S, {}), two_rows(S)}) {
    INFO((layout.one_run_a_row ? "one document a row" : "several documents a row"));
    compare(
        "grouped heads",
        [&](const auto& in) { return core::causal_attention(in[0], in[1], in[2], layout, 0.3); },
        {random({2, S, 6, 8}), random({2, S, 2, 8}), random({2, S, 2, 5})},
        2);
    for (const bool interleave : {false, true})
      compare(
          "keys beside values, shared rotating keys",
          [&](const auto& in) {
            const auto rope = table(4, S, in[0].scalar_type());
            return core::attention_op(
                {in[0], in[1], in[2], {}}, {rope.cos, rope.sin, interleave}, layout, 0.3);
          },
          {random({2, S, 3, 10}), random({2, S, 3, 6 + 5}), random({2, S, 4})},
          2);
    compare(
        "latents as keys and values",
        [&](const auto& in) {
          const auto rope = table(4, S, in[0].scalar_type());
          return core::attention_op(
              {in[0], in[1], in[2], in[1]}, {rope.cos, rope.sin, true}, layout, 0.3);
        },
        {random({2, S, 3, 12}), random({2, S, 1, 8}), random({2, S, 4})},
        2);
  }
}

TEST_CASE("Device branch: positions are those of the runs", "[core-device]") {
  // Two sequences in one row, each from position 0, as GRPO packs them.
  core::AttentionLayout layout{1, 7, {{0, 0, 3, 0}, {0, 3, 4, 0}}, false, {}};
  compare(
      "rotation by the run's positions",
      [&](const auto& in) {
        const auto rope = table(8, 4, in[0].scalar_type());
        return core::attention_op(
            {in[0], in[1], {}, in[2]}, {rope.cos, rope.sin, false}, layout, 0.5);
      },
      {random({1, 7, 2, 8}), random({1, 7, 2, 8}), random({1, 7, 2, 8})},
      2);
}

TEST_CASE("Device branch: products equal the CPU's", "[core-device]") {
  compare("linear",
          [](const auto& in) { return core::linear(in[0], in[1]); },
          {random({3, 4, 20}), random({12, 20})});
  for (const std::vector<int64_t>& counts : {std::vector<int64_t>{5, 0, 8, 1}, {0, 0, 14, 0}}) {
    compare("groups of rows of 16 bytes, which bf16 multiplies in one launch",
            [&](const auto& in) { return core::grouped_linear(in[0], in[1], counts); },
            {random({14, 16}), random({4, 24, 16})});
    compare("groups of other rows",
            [&](const auto& in) { return core::grouped_linear(in[0], in[1], counts); },
            {random({14, 10}), random({4, 6, 10})});
  }
  compare("no rows at all",
          [](const auto& in) {
            return core::grouped_linear(in[0], in[1], {0, 0});
          },
          {random({0, 16}), random({2, 8, 16})});
  for (const bool transposed : {false, true})
    compare("a matrix for each head",
            [&](const auto& in) { return core::head_linear(in[0], in[1], transposed); },
            {random({7, 3, 6}), transposed ? random({3, 5, 6}) : random({3, 6, 5})});
}

TEST_CASE("Device branch: cross-entropy over the head equals the CPU's", "[core-device]") {
  const auto x = random({40, 12}), head = random({23, 12});
  auto target = at::randint(0, 23, {40}, at::kLong);
  const auto f = [&](const auto& in) {
    return core::linear_cross_entropy_sum(in[0], in[1], target) * 0.25;
  };
  compare("every row has a target", f, {x, head});
  target.slice(0, 3, 40, 4).fill_(-1);
  compare("some rows have none", f, {x, head});
  target.fill_(-1);
  compare("no row has one", f, {x, head});
}

TEST_CASE("Device branch: cross-entropy goes through several chunks", "[core-device]") {
  const auto x = random({5000, 4}, at::kFloat), head = random({8192, 4}, at::kFloat);
  const auto target = at::randint(0, 8192, {5000}, at::kLong);
  const auto f = [&](const auto& in) {
    return core::linear_cross_entropy_sum(in[0], in[1], target);
  };
  const auto in = leaves({x, head}, at::kFloat);
  const auto expected = f(in);
  const auto gradients = gradients_of(f, in);
  const DeviceBranch branch;
  CHECK(error_of(f(in), expected) < 1e-5);
  const auto found = gradients_of(f, in);
  for (size_t i = 0; i < 2; ++i) CHECK(error_of(found[i], gradients[i]) < 1e-5);
}

TEST_CASE("Device branch: log-probabilities and entropies equal the CPU's", "[core-device]") {
  const auto target = at::randint(0, 23, {40}, at::kLong);
  for (const double temperature : {1.0, 0.6}) {
    const auto f = [&](const auto& in) {
      return core::token_log_probs(in[0], in[1], target, temperature).log_prob;
    };
    compare("log-probabilities", f, {random({40, 12}), random({23, 12})}, 2);
    compare("of no token",
            [&](const auto& in) {
              return core::token_log_probs(in[0], in[1], target.narrow(0, 0, 0), 1).log_prob;
            },
            {random({0, 12}), random({23, 12})});
    const auto x = random({40, 12}) * 30, head = random({23, 12});  // some p_j are 0
    const auto expected = core::token_log_probs(x, head, target, temperature).entropy;
    const DeviceBranch branch;
    CHECK(error_of(core::token_log_probs(x, head, target, temperature).entropy, expected) < 1e-9);
  }
}

TEST_CASE("Device branch: scores of tokens equal the CPU's, and come home at once",
          "[core-device]") {
  for (const auto& [dtype, bound] : {std::pair{at::kDouble, 1e-12}, {at::kFloat, 1e-5}}) {
    const auto x = random({700, 8}, dtype), head = random({3000, 8}, dtype);
    auto target = at::randint(0, 3000, {700}, at::kLong);
    target.slice(0, 0, 700, 3).copy_(at::mm(x, head.t()).argmax(1).slice(0, 0, 700, 3));
    const auto expected = core::score_tokens(x, head, target);
    const DeviceBranch branch;
    const int64_t before = core::num_host_copies();
    const Waits waits;
    const auto found = core::score_tokens(x, head, target);
    CHECK(Waits::count() == 0);
    CHECK(core::num_host_copies() == before + 1);
    CHECK(found.log_prob.scalar_type() == at::kDouble);
    CHECK(error_of(found.log_prob, expected.log_prob) < bound);
    CHECK(at::equal(found.likeliest, expected.likeliest));
    CHECK(found.likeliest.sum().item<int64_t>() >= 200);
  }
}

TEST_CASE("Device branch: optimizer updates equal the CPU's", "[core-device]") {
  for (const auto& [dtype, bound] : {std::pair{at::kDouble, 1e-13}, {at::kFloat, 1e-6}}) {
    const auto grad = random({1000}, dtype);
    const auto after = [&, dtype = dtype](int64_t steps) {
      at::manual_seed(5);
      auto w = random({1000}, dtype), m = at::zeros({1000}, dtype), v = at::zeros({1000}, dtype);
      auto momentum = random({1000}, dtype), direction = at::empty_like(momentum);
      for (int64_t t = 1; t <= steps; ++t) {
        core::adamw_update(w, grad, m, v, {1e-2, 0.9, 0.95, 1e-8, 0.1, t, 0.5});
        core::muon_momentum(momentum, grad, direction, 0.95, 0.5);
        core::muon_apply(w, direction, 1e-2, 0.1, 0.3);
      }
      return std::vector{w, m, v, momentum, direction};
    };
    const auto expected = after(5);
    const double squares = core::sum_of_squares(grad);
    const DeviceBranch branch;
    const auto found = after(5);
    for (size_t i = 0; i < found.size(); ++i) CHECK(error_of(found[i], expected[i]) < bound);
    CHECK(core::sum_of_squares(grad) == Approx(squares).epsilon(1e-6));
  }
  const auto from = random({100}, at::kBFloat16);
  auto on_cpu = random({100}, at::kFloat);
  auto on_device = on_cpu.clone();
  core::accumulate(on_cpu, from);
  const DeviceBranch branch;
  core::accumulate(on_device, from);
  CHECK(identical(on_cpu, on_device));
}

TEST_CASE("Copies to the host are counted in the device branch", "[core-device]") {
  const auto x = at::full({1}, 3.5).set_requires_grad(true);
  const int64_t before = core::num_host_copies();
  CHECK(core::to_host(x).is_same(x));
  CHECK(core::num_host_copies() == before);
  const DeviceBranch branch;
  CHECK(core::host_value(x) == 3.5);
  CHECK(core::num_host_copies() == before + 1);
  CHECK_THROWS_AS(core::host_value(at::zeros({2})), Error);
}
