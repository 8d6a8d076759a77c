#include <cmath>
#include <string>

#include "core/base/error.h"
#include "core/io/safetensors.h"
#include "core/optim/adamw.h"
#include "core/optim/gradient_norm.h"
#include "core/optim/muon.h"
#include "tests/catch.h"
#include "tests/fixtures.h"

using namespace cohort::core;

namespace {

/// d/dw of 0.5 |w - target|^2 + 0.1 sum(sin 3w), by the reference's own graph: where a gradient all
/// but vanishes, AdamW magnifies the rounding of another formula for it.
at::Tensor fixture_gradient(const at::Tensor& w, const at::Tensor& target) {
  const at::Tensor x = w.clone().requires_grad_();
  (0.5 * (x - target).pow(2).sum() + 0.1 * at::sin(3 * x).sum()).backward();
  return x.grad();
}

double max_difference(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).abs().max().item<double>();
}

/// AdamW in the plainest form, one operation a line.
void adamw_reference(
    at::Tensor& w, const at::Tensor& grad, at::Tensor& m, at::Tensor& v, const AdamWStep& s) {
  const at::Tensor g = grad * s.grad_scale;
  w.mul_(1 - s.lr * s.weight_decay);
  m.lerp_(g, 1 - s.beta1);
  v.mul_(s.beta2).addcmul_(g, g, 1 - s.beta2);
  const double bias1 = 1 - std::pow(s.beta1, s.t), bias2 = 1 - std::pow(s.beta2, s.t);
  const at::Tensor denominator = (v.sqrt() / std::sqrt(bias2)).add_(s.eps);
  w.addcdiv_(m, denominator, -s.lr / bias1);
}

}  // namespace

TEST_CASE("AdamW and Muon follow the reference for 20 steps", "[core][optim][parity]") {
  for (const auto& path : cohort::tests::cases("optimizer")) {
    const bool is_muon = path.filename().string().find("muon") == 0;
    CAPTURE(path.string());
    auto file = read_safetensors(path.string());
    at::Tensor w = file.at("w0").clone();
    const int64_t rows = w.size(0), columns = w.size(1);
    at::Tensor moment = at::zeros_like(w), moment_sq = at::zeros_like(w),
               direction = at::zeros_like(w);
    for (int64_t step = 1; step <= 20; ++step) {
      const at::Tensor grad = fixture_gradient(w, file.at("target"));
      if (is_muon) {
        muon_momentum(moment.data_ptr<float>(),
                      grad.data_ptr<float>(),
                      direction.data_ptr<float>(),
                      w.numel(),
                      0.95,
                      1.0);
        const at::Tensor update = newton_schulz(direction);
        muon_apply(w.data_ptr<float>(),
                   update.data_ptr<float>(),
                   w.numel(),
                   1e-2,
                   0.1,
                   muon_scale(rows, columns));
      } else {
        adamw_update(w.data_ptr<float>(),
                     grad.data_ptr<float>(),
                     moment.data_ptr<float>(),
                     moment_sq.data_ptr<float>(),
                     w.numel(),
                     {1e-2, 0.9, 0.95, 1e-8, 0.1, step, 1.0});
      }
      const auto expected = file.find("w_" + std::to_string(step));
      if (expected == file.end()) continue;
      CAPTURE(step);
      CHECK(max_difference(w, expected->second) < (is_muon ? 1e-5 : 1e-6));
    }
  }
}

TEST_CASE("AdamW does what its formula says, for every element and size", "[core][optim]") {
  for (const double beta1 : {0.9, 0.3, 0.0}) {
    for (const int64_t n : {1, 7, 1000, 100001}) {
      at::Tensor w = at::randn({n}, at::kDouble), m = at::randn({n}, at::kDouble);
      at::Tensor v = at::rand({n}, at::kDouble);
      at::Tensor w2 = w.clone(), m2 = m.clone(), v2 = v.clone();
      for (int64_t t = 1; t <= 3; ++t) {
        const at::Tensor g = at::randn({n}, at::kDouble);
        const AdamWStep step{3e-3, beta1, 0.95, 1e-8, 0.1, t, 0.7};
        adamw_update(w.data_ptr<double>(),
                     g.data_ptr<double>(),
                     m.data_ptr<double>(),
                     v.data_ptr<double>(),
                     n,
                     step);
        adamw_reference(w2, g, m2, v2, step);
      }
      CHECK(max_difference(w, w2) < 1e-14);
      CHECK(max_difference(m, m2) < 1e-14);
      CHECK(max_difference(v, v2) < 1e-14);
    }
  }
}

TEST_CASE("AdamW of an element does not depend on where a slice begins", "[core][optim]") {
  const int64_t n = 70001;
  const at::Tensor w = at::randn({n}), g = at::randn({n}), m = at::randn({n}), v = at::rand({n});
  const AdamWStep step{1e-3, 0.9, 0.95, 1e-8, 0.1, 5, 0.3};
  const auto run = [&](std::vector<int64_t> cuts) {
    at::Tensor w1 = w.clone(), m1 = m.clone(), v1 = v.clone();
    cuts.push_back(n);
    int64_t begin = 0;
    for (const int64_t end : cuts) {
      adamw_update(w1.data_ptr<float>() + begin,
                   g.data_ptr<float>() + begin,
                   m1.data_ptr<float>() + begin,
                   v1.data_ptr<float>() + begin,
                   end - begin,
                   step);
      begin = end;
    }
    return at::cat({w1, m1, v1});
  };
  const at::Tensor whole = run({});
  CHECK(at::equal(whole, run({1, 2, 35, 40000})));
  CHECK(at::equal(whole, run({33333})));
}

TEST_CASE("Newton-Schulz brings singular values near one and keeps the directions",
          "[core][optim]") {
  for (const auto& [rows, columns] : {std::pair{16, 40}, {40, 16}, {9, 9}, {1, 6}, {6, 1}}) {
    CAPTURE(rows, columns);
    const at::Tensor g = at::randn({rows, columns}, at::kDouble);
    const at::Tensor x = newton_schulz(g);
    REQUIRE(x.sizes() == g.sizes());
    CHECK(x.is_contiguous());
    // x x^T commutes with g g^T (same singular vectors).
    const at::Tensor a = at::mm(x, x.t()), b = at::mm(g, g.t());
    CHECK(max_difference(at::mm(a, b), at::mm(b, a)) < 1e-10 * b.abs().max().item<double>());
    // The polynomial's singular values end between 0.68 and 1.14, but for the very small ones.
    const double mean_square = x.square().sum().item<double>() / std::min(rows, columns);
    CHECK(mean_square > 0.4);
    CHECK(mean_square < 1.3);
  }
  CHECK(newton_schulz(at::zeros({4, 3})).eq(0).all().item<bool>());
  CHECK(newton_schulz(at::randn({4, 3})).scalar_type() == at::kFloat);
  CHECK_THROWS_AS(newton_schulz(at::zeros({4})), cohort::Error);
}

TEST_CASE("The sum of squares is exact to fp64 and keeps what is not finite", "[core][optim]") {
  for (const int64_t n : {0, 1, 4096, 100003}) {
    const at::Tensor values = at::randn({n});
    const double expected = values.to(at::kDouble).square().sum().item<double>();
    CHECK(sum_of_squares(values) == Approx(expected).epsilon(1e-13));
    CHECK(sum_of_squares(values.to(at::kDouble)) == Approx(expected).epsilon(1e-13));
  }
  at::Tensor large = at::full({5000}, 1e30f);
  CHECK(std::isfinite(sum_of_squares(large)));
  large[4999] = INFINITY;
  CHECK_FALSE(std::isfinite(sum_of_squares(large)));
  large[4999] = NAN;
  CHECK(std::isnan(sum_of_squares(large)));
}

TEST_CASE("bf16 gradients are added in fp32", "[core][optim]") {
  const int64_t n = 40001;
  const at::Tensor sum = at::randn({n}), expected = sum.clone();
  const at::Tensor grad = at::randn({n}).to(at::kBFloat16);
  accumulate(sum.data_ptr<float>(), grad.data_ptr<at::BFloat16>(), n);
  CHECK(at::equal(sum, expected + grad.to(at::kFloat)));
}
