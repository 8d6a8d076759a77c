#include "core/nn/cross_entropy.h"

#include "core/base/error.h"
#include "tests/catch.h"
#include "tests/core/gradients.h"

using namespace cohort;
using namespace cohort::tests;

namespace {

at::Tensor targets(int64_t rows, int64_t classes) {
  return at::randint(-1, classes, {rows}, at::TensorOptions().dtype(at::kLong));
}

Function ours(const at::Tensor& target) {
  return [target](const auto& in) { return core::linear_cross_entropy_sum(in[0], in[1], target); };
}

/// The whole [T, V] at once.
Function reference(const at::Tensor& target) {
  return [target](const auto& in) {
    const auto log_p = at::log_softmax(at::mm(in[0], in[1].t()), -1);
    const auto picked = log_p.gather(1, target.clamp_min(0).unsqueeze(1)).squeeze(1);
    return -(picked * target.ge(0).to(picked.scalar_type())).sum();
  };
}

}  // namespace

TEST_CASE("Chunked cross-entropy equals log-softmax over the whole", "[core-cross_entropy]") {
  // Logits reach 15 here, so that fp32 leaves them, and the logarithm of each gradient, 1e-6 of
  // error. 4096 classes are taken 256 rows at a time: 300 rows leave a tail.
  for (const auto& [dtype, bound] :
       {std::pair{at::kDouble, 1e-12}, {at::kFloat, 1e-5}, {at::kBFloat16, 2e-2}})
    for (const auto& [rows, classes] :
         {std::pair<int64_t, int64_t>{1, 1}, {1, 5}, {7, 29}, {300, 4096}, {256, 4097}}) {
      INFO(at::toString(dtype) << ", " << rows << " rows of " << classes << " classes");
      const auto x = random({rows, 8}, dtype), head = random({classes, 8}, dtype);
      const auto target = targets(rows, classes);
      const auto in = leaves({x, head}, dtype), in64 = leaves({x, head});
      const auto loss = ours(target)(in);
      CHECK(loss.dim() == 0);
      CHECK(loss.scalar_type() == (dtype == at::kDouble ? at::kDouble : at::kFloat));
      CHECK(error_of(loss, reference(target)(in64)) < bound);
      const auto g = gradients_of(ours(target), in), g64 = gradients_of(reference(target), in64);
      CHECK(g[0].scalar_type() == dtype);
      CHECK(g[1].scalar_type() == dtype);
      CHECK(error_of(g[0], g64[0]) < bound);
      CHECK(error_of(g[1], g64[1]) < bound);
    }
}

TEST_CASE("Cross-entropy's gradients equal finite differences and scale with what is above",
          "[core-cross_entropy]") {
  const auto target = targets(11, 17);
  check_finite_differences(ours(target), {random({11, 5}), random({17, 5})}, 1e-7);
  const auto in = leaves({random({11, 5}), random({17, 5})});
  const auto once = gradients_of(ours(target), in);
  const auto scaled = gradients_of([&](const auto& x) { return ours(target)(x) * 0.25; }, in);
  for (int i : {0, 1}) CHECK(error_of(scaled[i], once[i] * 0.25) < 1e-15);
}

TEST_CASE("Rows without a target cost nothing and get no gradient", "[core-cross_entropy]") {
  const auto in = leaves({random({6, 3}), random({10, 3})});
  const auto none = at::full({6}, -1, at::kLong);
  CHECK(ours(none)(in).item<double>() == 0);
  for (const auto& g : gradients_of(ours(none), in)) CHECK(g.abs().max().item<double>() == 0);
  const auto one = at::tensor({-1, 4, -1, -1, -1, -1}, at::kLong);
  const auto g = gradients_of(ours(one), in)[0];
  CHECK(g[1].abs().max().item<double>() > 0);
  CHECK(g[0].abs().max().item<double>() + g.narrow(0, 2, 4).abs().max().item<double>() == 0);
  const auto empty = leaves({random({0, 3}), random({10, 3})});
  CHECK(ours(at::empty({0}, at::kLong))(empty).item<double>() == 0);
  CHECK(gradients_of(ours(at::empty({0}, at::kLong)), empty)[1].abs().max().item<double>() == 0);
}

TEST_CASE("Logits of 1e4 neither overflow nor lose the loss", "[core-cross_entropy]") {
  for (auto dtype : {at::kFloat, at::kDouble}) {
    const auto head = at::tensor({1e4, -1e4, 0.0}, at::TensorOptions().dtype(dtype)).unsqueeze(1);
    const auto x = at::ones({3, 1}, head.options());
    const auto target = at::tensor({0, 1, 2}, at::kLong);
    const auto in = leaves({x, head}, dtype);
    CHECK(ours(target)(in).item<double>() == Approx(3e4));
    const auto g = gradients_of(ours(target), in);
    CHECK(error_of(g[0], at::tensor({0.0, 2e4, 1e4}, at::kDouble).unsqueeze(1)) < 1e-6);
    CHECK(error_of(g[1], at::tensor({2.0, -1.0, -1.0}, at::kDouble).unsqueeze(1)) < 1e-6);
  }
}

TEST_CASE("A NaN in the logits reaches the loss", "[core-cross_entropy]") {
  auto x = random({4, 3}, at::kFloat);
  x[2][1] = std::nan("");
  CHECK(at::isnan(core::linear_cross_entropy_sum(
                      x, random({9, 3}, at::kFloat), at::zeros({4}, at::kLong)))
            .item<bool>());
}

TEST_CASE("Gradients that nobody wants are not computed", "[core-cross_entropy]") {
  const auto target = targets(9, 13);
  const auto x = random({9, 4}), head = random({13, 4});
  const auto in = leaves({x, head});
  const auto both = gradients_of(ours(target), in);
  CHECK(error_of(gradients_of(
                     [&](const auto& v) {
                       return ours(target)({v[0], head});
                     },
                     {in[0]})[0],
                 both[0]) < 1e-14);
  CHECK(error_of(gradients_of(
                     [&](const auto& v) {
                       return ours(target)({x, v[0]});
                     },
                     {in[1]})[0],
                 both[1]) < 1e-14);
  const at::NoGradGuard no_grad;
  const auto loss = ours(target)(in);
  CHECK_FALSE(loss.requires_grad());
  CHECK(error_of(loss, reference(target)(in)) < 1e-13);
}

TEST_CASE("Targets outside the vocabulary are refused", "[core-cross_entropy]") {
  const auto x = random({2, 3}), head = random({4, 3});
  CHECK_THROWS_AS(core::linear_cross_entropy_sum(x, head, at::tensor({0, 4}, at::kLong)), Error);
  CHECK_THROWS_AS(core::linear_cross_entropy_sum(x, head, at::tensor({0, -2}, at::kLong)), Error);
  CHECK_THROWS_AS(core::linear_cross_entropy_sum(x, head, at::tensor({0}, at::kLong)), Error);
  CHECK_THROWS_AS(core::linear_cross_entropy_sum(x, random({4, 2}), at::tensor({0, 1}, at::kLong)),
                  Error);
}
