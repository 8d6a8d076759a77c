#include "moe/router.h"

#include "core/io/safetensors.h"
#include "kernels/cpu/router.h"
#include "moe/balance.h"
#include "tests/catch.h"
#include "tests/fixtures.h"

using namespace cohort;

namespace {

core::ModelConfig config_of(std::map<std::string, at::Tensor>& t) {
  core::ModelConfig c;
  c.n_routed_experts = t["logits"].size(1);
  c.num_experts_per_tok = t["top_k"].item<int64_t>();
  c.n_group = t["n_group"].item<int64_t>();
  c.topk_group = t["topk_group"].item<int64_t>();
  c.norm_topk_prob = t["norm"].item<int64_t>() != 0;
  c.routed_scaling_factor = t["scaling"].item<double>();
  return c;
}

double largest_difference(const at::Tensor& a, const at::Tensor& b) {
  return (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>();
}

}  // namespace

TEST_CASE("Routing, balance and the sequence-wise loss equal the reference", "[moe][router][parity]") {
  for (const auto& path : tests::cases("router")) {
    INFO(path.string());
    auto t = core::read_safetensors(path.string());
    const auto config = config_of(t);
    const double alpha = t["alpha"].item<double>();
    // fp64 to 1e-12 (rounding only); fp32 to 1e-6 (its resolution of values near 1).
    for (const auto [dtype, tolerance] : {std::pair{at::kDouble, 1e-12}, {at::kFloat, 1e-6}}) {
      const at::Tensor logits = t["logits"].to(dtype).requires_grad_();
      const auto routing = moe::route(logits, t["bias"].to(dtype), 1, config);
      REQUIRE(at::equal(routing.expert_TK, t["indices"]));
      CHECK(largest_difference(routing.gate_TK, t["weights"]) < tolerance);
      CHECK(largest_difference(routing.sequence_loss * alpha, t["sequence_loss"]) < tolerance);
      (routing.sequence_loss * alpha).backward();
      CHECK(largest_difference(logits.grad(), t["d_logits"]) < tolerance);
    }
    at::Tensor bias = t["bias"].clone();
    const at::Tensor load = at::bincount(t["indices"].flatten(), {}, config.n_routed_experts);
    CHECK(at::equal(load, t["load"]));
    moe::update_bias(bias, load, t["gamma"].item<double>());
    CHECK(largest_difference(bias, t["bias_next"]) < 1e-15);
  }
}

TEST_CASE("The gradient of gates and sequence loss is that of finite differences", "[moe][router]") {
  const auto softmax = GENERATE(false, true);
  const auto normalise = GENERATE(false, true);
  core::ModelConfig config;
  config.n_routed_experts = 6;
  config.num_experts_per_tok = 3;
  config.norm_topk_prob = normalise;
  config.routed_scaling_factor = 1.7;
  config.scoring_func = softmax ? "softmax" : "sigmoid";
  at::Tensor logits = at::linspace(-1, 1, 48, at::kDouble).sin().mul(3).cos().view({8, 6}).contiguous();
  const at::Tensor weight = at::linspace(0.5, 2, 24, at::kDouble).view({8, 3});
  const auto expert = moe::route(logits, {}, 2, config).expert_TK;
  const auto f = [&](const at::Tensor& x) {
    const auto routing = moe::route(x, {}, 2, config, expert);
    return (routing.gate_TK * weight).sum() + routing.sequence_loss * 0.3;
  };
  const at::Tensor x = logits.clone().requires_grad_();
  f(x).backward();
  const double h = 1e-6;
  for (int64_t i = 0; i < logits.numel(); ++i) {
    at::Tensor up = logits.clone(), down = logits.clone();
    up.view({-1})[i] += h;
    down.view({-1})[i] -= h;
    const double slope = ((f(up) - f(down)) / (2 * h)).item<double>();
    CHECK(x.grad().view({-1})[i].item<double>() == Approx(slope).margin(1e-8));
  }
}

TEST_CASE("Equal scores go to the lower expert, and NaN to none", "[moe][router]") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const std::vector<double> scores{0.5, 0.5, 0.5, 0.5, nan, 0.1, nan, 0.2};
  std::vector<int64_t> expert(4);
  kernels::choose_experts<double>({2, 4, 2}, scores.data(), nullptr, expert.data());
  CHECK(expert == std::vector<int64_t>{0, 1, 1, 3});
}

TEST_CASE("A load equal to the mean moves no bias", "[moe][balance]") {
  at::Tensor bias = at::zeros({4}, at::kFloat);
  moe::update_bias(bias, at::tensor({5, 3, 4, 4}, at::kLong), 0.001);
  CHECK(at::equal(bias, at::tensor({-0.001f, 0.001f, 0.0f, 0.0f})));
  CHECK(moe::max_violation(at::tensor({5, 3, 4, 4}, at::kLong)) == Approx(0.25));
  CHECK(moe::max_violation(at::zeros({4}, at::kLong)) == 0);
  // Counts beyond fp32's integers still tell the sign.
  at::Tensor large = at::zeros({2}, at::kFloat);
  moe::update_bias(large, at::tensor({(int64_t{1} << 40) + 1, int64_t{1} << 40}, at::kLong), 1.0);
  CHECK(at::equal(large, at::tensor({-1.0f, 1.0f})));
}
