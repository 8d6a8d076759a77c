#include "core/nn/init.h"

#include "tests/catch.h"
#include "tests/core/gradients.h"

using namespace cohort;
using namespace cohort::tests;

TEST_CASE("Initial weights are a function of seed, name and index", "[core-init]") {
  core::Initializer init{7, 0.02, at::kDouble, at::kCPU};
  const auto a = init.normal("layer.weight", {30, 41});
  CHECK(a.is_leaf());
  CHECK(a.requires_grad());
  CHECK(identical(a, init.normal("layer.weight", {30, 41})));
  CHECK(identical(a.flatten().narrow(0, 0, 77), init.normal("layer.weight", {77})));
  CHECK_FALSE(identical(a, init.normal("layer.bias", {30, 41})));
  init.seed = 8;
  CHECK_FALSE(identical(a, init.normal("layer.weight", {30, 41})));
  init.seed = 7;
  const Threads limit(1);
  CHECK(identical(a, init.normal("layer.weight", {30, 41})));
}

TEST_CASE("One expert of a stacked parameter is filled as if it stood alone", "[core-init]") {
  const core::Initializer init{3, 0.5, at::kFloat, at::kCPU};
  auto stacked = at::zeros({4, 5, 3});
  init.fill_normal("experts.2.weight", stacked[2]);
  CHECK(identical(stacked[2], init.normal("experts.2.weight", {5, 3}).detach()));
  CHECK(stacked[1].abs().max().item<double>() == 0);
  CHECK(stacked[3].abs().max().item<double>() == 0);
}

TEST_CASE("Initial weights are normal with the deviation asked for", "[core-init]") {
  const core::Initializer init{1, 0.02, at::kDouble, at::kCPU};
  const int64_t n = 1 << 18;
  const auto z = init.normal("w", {n}).detach() / 0.02;
  const double root = std::sqrt(static_cast<double>(n));
  CHECK(std::abs(z.mean().item<double>()) < 5 / root);
  CHECK(std::abs(z.pow(2).mean().item<double>() - 1) < 5 * std::sqrt(2.0) / root);
  CHECK(std::abs(z.pow(3).mean().item<double>()) < 5 * std::sqrt(15.0) / root);
  CHECK(std::abs(z.pow(4).mean().item<double>() - 3) < 5 * std::sqrt(96.0) / root);
  // The two halves of a Box-Muller pair, and neighbours, are uncorrelated.
  CHECK(std::abs((z.narrow(0, 0, n - 1) * z.narrow(0, 1, n - 1)).mean().item<double>()) < 5 / root);
  CHECK(z.abs().max().item<double>() > 4);
}

TEST_CASE("Lower precisions are rounded from the same draw", "[core-init]") {
  core::Initializer init{1, 0.02, at::kDouble, at::kCPU};
  const auto exact = init.normal("w", {33}).detach();
  for (auto dtype : {at::kFloat, at::kBFloat16}) {
    init.dtype = dtype;
    CHECK(identical(init.normal("w", {33}).detach(), exact.to(at::kFloat).to(dtype)));
    CHECK(init.ones({3}).scalar_type() == dtype);
    CHECK(init.zeros({3}).sum().item<double>() == 0);
    CHECK(init.ones({3}).requires_grad());
  }
}
