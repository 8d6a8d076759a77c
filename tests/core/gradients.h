// Comparing tensors and gradients in the tests of layers.
#pragma once
#include <ATen/ATen.h>
#include <omp.h>
#include <torch/csrc/autograd/autograd.h>

#include <functional>
#include <vector>

#include "tests/catch.h"

namespace cohort::tests {

using Function = std::function<at::Tensor(const std::vector<at::Tensor>&)>;

/// Largest difference over the largest magnitude of the reference, in fp64.
inline double error_of(const at::Tensor& value, const at::Tensor& reference) {
  REQUIRE(value.sizes() == reference.sizes());
  if (reference.numel() == 0) return 0;
  const auto exact = reference.detach().to(at::kDouble);
  const double size = exact.abs().max().item<double>();
  return (value.detach().to(at::kDouble) - exact).abs().max().item<double>() /
         (size > 0 ? size : 1);
}

/// The same bits.
inline bool identical(const at::Tensor& a, const at::Tensor& b) { return at::equal(a, b); }

inline at::Tensor random(at::IntArrayRef shape, at::ScalarType dtype = at::kDouble) {
  return at::randn(shape, at::TensorOptions().dtype(at::kDouble)).to(dtype);
}

/// Copies of `inputs` in `dtype` that require gradients.
inline std::vector<at::Tensor> leaves(const std::vector<at::Tensor>& inputs,
                                      at::ScalarType dtype = at::kDouble) {
  std::vector<at::Tensor> copies;
  for (const auto& x : inputs)
    copies.push_back(x.detach().to(dtype).clone().set_requires_grad(true));
  return copies;
}

/// d sum(f * d_out) / d inputs; d_out undefined: f is a scalar.
inline std::vector<at::Tensor> gradients_of(const Function& f,
                                            const std::vector<at::Tensor>& inputs,
                                            const at::Tensor& d_out = {}) {
  const auto out = f(inputs);
  return torch::autograd::grad({out},
                               inputs,
                               d_out.defined()
                                   ? std::vector<at::Tensor>{d_out.to(out.scalar_type())}
                                   : std::vector<at::Tensor>{});
}

/// Each gradient of sum(f * weights) in fp64, along one random direction, against a central
/// difference.
inline void check_finite_differences(const Function& f,
                                     const std::vector<at::Tensor>& inputs,
                                     double tolerance) {
  const auto x = leaves(inputs);
  const auto weights = at::randn_like(f(x).detach());
  const auto gradients = gradients_of(f, x, weights);
  const double h = 1e-6;
  at::NoGradGuard no_grad;
  for (size_t i = 0; i < x.size(); ++i) {
    const auto direction = at::randn_like(x[i]);
    const auto moved = [&](double by) {
      auto y = x;
      y[i] = x[i].detach() + by * direction;
      return (f(y) * weights).sum().item<double>();
    };
    const double expected = (moved(h) - moved(-h)) / (2 * h);
    const double found = (gradients[i] * direction).sum().item<double>();
    INFO("input " << i << ": gradient " << found << ", finite difference " << expected);
    CHECK(std::abs(found - expected) <= tolerance * std::max(1.0, std::abs(expected)));
  }
}

/// A number of OpenMP threads for as long as it lives.
class Threads {
 public:
  explicit Threads(int count) : before_(omp_get_max_threads()) { omp_set_num_threads(count); }
  ~Threads() { omp_set_num_threads(before_); }

 private:
  int before_;
};

}  // namespace cohort::tests
