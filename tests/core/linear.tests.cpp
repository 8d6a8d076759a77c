#include "core/nn/linear.h"

#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include <functional>

#include "core/base/error.h"
#include "tests/catch.h"

// Called with their namespace: at::linear would be found as well.
namespace core = cohort::core;

namespace {

at::Tensor random(at::IntArrayRef shape, at::ScalarType type = at::kDouble) {
  return at::randn(shape, at::kDouble).to(type);
}

at::Tensor leaf(const at::Tensor& t) { return t.detach().clone().set_requires_grad(true); }

/// Gradient of sum(f(t) * direction) with respect to t by central differences. t is fp64.
at::Tensor by_differences(const std::function<at::Tensor()>& f,
                          at::Tensor t,
                          const at::Tensor& direction) {
  at::NoGradGuard off;
  at::Tensor gradient = at::zeros_like(t);
  double *value = t.data_ptr<double>(), *to = gradient.data_ptr<double>();
  for (int64_t i = 0; i < t.numel(); ++i) {
    const double before = value[i], step = 1e-5;
    value[i] = before + step;
    const double up = (f() * direction).sum().item<double>();
    value[i] = before - step;
    const double down = (f() * direction).sum().item<double>();
    value[i] = before;
    to[i] = (up - down) / (2 * step);
  }
  return gradient;
}

void check_gradients(const std::function<at::Tensor()>& f, at::Tensor x, at::Tensor weight) {
  const at::Tensor y = f(), direction = random(y.sizes());
  torch::autograd::backward({y}, {direction});
  REQUIRE(at::allclose(x.grad(), by_differences(f, x, direction), 1e-7, 1e-8));
  REQUIRE(at::allclose(weight.grad(), by_differences(f, weight, direction), 1e-7, 1e-8));
}

/// The same product written out with at::mm.
at::Tensor reference(const at::Tensor& x,
                     const at::Tensor& weight,
                     const std::vector<int64_t>& counts) {
  std::vector<at::Tensor> parts;
  int64_t row = 0;
  for (size_t g = 0; g < counts.size(); ++g) {
    parts.push_back(
        at::mm(x.narrow(0, row, counts[g]), weight.select(0, static_cast<int64_t>(g)).t()));
    row += counts[g];
  }
  return at::cat(parts);
}

double difference(const at::Tensor& a, const at::Tensor& b) {
  REQUIRE(a.sizes() == b.sizes());
  return a.numel() == 0 ? 0 : (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>();
}

}  // namespace

TEST_CASE("linear has the gradients that finite differences have", "[core][linear]") {
  at::manual_seed(1);
  const at::Tensor x = leaf(random({2, 3, 5})), weight = leaf(random({4, 5}));
  check_gradients([&] { return core::linear(x, weight); }, x, weight);
}

TEST_CASE("grouped linear has the gradients that finite differences have, empty groups included",
          "[core][linear]") {
  at::manual_seed(2);
  const at::Tensor x = leaf(random({7, 5})), weight = leaf(random({4, 3, 5}));
  check_gradients([&] { return core::grouped_linear(x, weight, {0, 4, 0, 3}); }, x, weight);
  REQUIRE(weight.grad().select(0, 2).abs().max().item<double>() == 0);
}

TEST_CASE("linear agrees with fp64 in every dtype, forward and backward", "[core][linear]") {
  at::manual_seed(3);
  for (const auto& [type, tolerance] :
       {std::pair{at::kFloat, 1e-4}, {at::kBFloat16, 0.5}, {at::kDouble, 1e-12}}) {
    const at::Tensor x = random({3, 50, 96}, type), weight = random({40, 96}, type),
                     d_y = random({3, 50, 40}, type);
    const at::Tensor x1 = leaf(x), w1 = leaf(weight), x2 = leaf(x.to(at::kDouble)),
                     w2 = leaf(weight.to(at::kDouble));
    const at::Tensor y1 = core::linear(x1, w1), y2 = at::matmul(x2, w2.t());
    torch::autograd::backward({y1}, {d_y});
    torch::autograd::backward({y2}, {d_y.to(at::kDouble)});
    CAPTURE(c10::toString(type));
    REQUIRE(y1.scalar_type() == type);
    REQUIRE(difference(y1, y2) < tolerance);
    REQUIRE(difference(x1.grad(), x2.grad()) < tolerance);
    REQUIRE(difference(w1.grad(), w2.grad()) < tolerance);
  }
}

TEST_CASE("grouped linear agrees with a product for each group in every dtype", "[core][linear]") {
  at::manual_seed(4);
  const std::vector<int64_t> counts = {40, 0, 1, 130, 17};
  for (const auto& [type, tolerance] :
       {std::pair{at::kFloat, 1e-4}, {at::kBFloat16, 0.5}, {at::kDouble, 1e-12}}) {
    const at::Tensor x = random({188, 72}, type), weight = random({5, 48, 72}, type),
                     d_y = random({188, 48}, type);
    const at::Tensor x1 = leaf(x), w1 = leaf(weight), x2 = leaf(x.to(at::kDouble)),
                     w2 = leaf(weight.to(at::kDouble));
    const at::Tensor y1 = core::grouped_linear(x1, w1, counts), y2 = reference(x2, w2, counts);
    torch::autograd::backward({y1}, {d_y});
    torch::autograd::backward({y2}, {d_y.to(at::kDouble)});
    CAPTURE(c10::toString(type));
    REQUIRE(difference(y1, y2) < tolerance);
    REQUIRE(difference(x1.grad(), x2.grad()) < tolerance);
    REQUIRE(difference(w1.grad(), w2.grad()) < tolerance);
  }
}

TEST_CASE("inputs and gradients may be views of any layout", "[core][linear]") {
  at::manual_seed(5);
  for (const auto type : {at::kFloat, at::kDouble}) {
    const at::Tensor weight = random({16, 20}, type), wide = random({30, 64}, type);
    const at::Tensor expected = at::mm(wide.narrow(1, 7, 20), weight.t());
    REQUIRE(difference(core::linear(wide.narrow(1, 7, 20), weight), expected) <
            1e-4);  // rows apart
    REQUIRE(difference(core::linear(wide.narrow(1, 7, 20).t().contiguous().t(), weight), expected) <
            1e-4);  // columns
    REQUIRE(difference(core::linear(wide.narrow(1, 7, 20), weight.t().contiguous().t()), expected) <
            1e-4);
    REQUIRE(difference(core::linear(wide[3].narrow(0, 7, 20), weight), expected[3]) <
            1e-4);  // a vector
    REQUIRE(difference(core::linear(wide.narrow(0, 2, 1).narrow(1, 7, 20).expand({4, 20}), weight),
                       expected.narrow(0, 2, 1).expand({4, 16})) < 1e-4);
    const at::Tensor x = leaf(wide.narrow(1, 7, 20)), w = leaf(weight);
    core::linear(x, w).sum().backward();  // the gradient of y is one element, expanded
    REQUIRE(difference(x.grad(), weight.sum(0).expand({30, 20})) < 1e-4);
    REQUIRE(difference(w.grad(), x.detach().sum(0).expand({16, 20})) < 1e-4);
  }
}

TEST_CASE("no rows at all give an empty result and a gradient of zeros", "[core][linear]") {
  for (const auto type : {at::kFloat, at::kDouble, at::kBFloat16}) {
    const at::Tensor x = leaf(random({0, 8}, type)), w = leaf(random({4, 8}, type)),
                     stack = leaf(random({3, 4, 8}, type));
    const at::Tensor y = core::linear(x, w), z = core::grouped_linear(x, stack, {0, 0, 0});
    REQUIRE(y.sizes() == at::IntArrayRef({0, 4}));
    REQUIRE(z.sizes() == at::IntArrayRef({0, 4}));
    (y.sum() + z.sum()).backward();
    REQUIRE(w.grad().abs().sum().item<double>() == 0);
    REQUIRE(stack.grad().abs().sum().item<double>() == 0);
    REQUIRE(x.grad().sizes() == x.sizes());
  }
}

TEST_CASE("only gradients that are wanted are computed", "[core][linear]") {
  const at::Tensor x = random({6, 8}, at::kFloat), w = leaf(random({4, 8}, at::kFloat));
  core::linear(x, w).sum().backward();
  REQUIRE(w.grad().defined());
  REQUIRE_FALSE(x.grad().defined());
  const at::Tensor wanted = leaf(x), frozen = w.detach();
  core::linear(wanted, frozen).sum().backward();
  REQUIRE(wanted.grad().defined());
  REQUIRE_FALSE(frozen.grad().defined());
  at::NoGradGuard off;
  REQUIRE_FALSE(core::linear(x, w).requires_grad());
}

TEST_CASE("shapes that do not fit are refused with the shapes in the message", "[core][linear]") {
  const at::Tensor x = random({6, 8}), w = random({4, 7}), stack = random({2, 4, 8});
  REQUIRE_THROWS_AS(core::linear(x, w), cohort::Error);
  REQUIRE_THROWS_AS(core::linear(x, stack), cohort::Error);
  REQUIRE_THROWS_AS(core::linear(x.to(at::kFloat), random({4, 8})), cohort::Error);
  REQUIRE_THROWS_AS(core::grouped_linear(x, stack, {3, 2}), cohort::Error);
  REQUIRE_THROWS_AS(core::grouped_linear(x, stack, {7, -1}), cohort::Error);
  REQUIRE_THROWS_AS(core::grouped_linear(x, stack, {6}), cohort::Error);
  try {
    core::linear(x, w);
  } catch (const cohort::Error& error) {
    REQUIRE(std::string(error.what()).find("6x8") != std::string::npos);
  }
}

TEST_CASE("a second derivative is refused, not wrong", "[core][linear]") {
  const at::Tensor x = leaf(random({2, 3})), w = leaf(random({4, 3}));
  const at::Tensor y = core::linear(x, w).sum();
  REQUIRE_THROWS_AS(torch::autograd::grad({y}, {x}, {}, true, true), cohort::Error);
}
