#include "core/nn/init.h"

#include <cmath>
#include <numbers>

#include "core/base/rng.h"
#include "core/nn/kernel_types.h"
#include "kernels/cpu/parallel.h"

namespace cohort::core {
namespace {

/// Elements 2p and 2p + 1 of the stream: Box-Muller on two uniform numbers.
std::pair<double, double> normal_pair(uint64_t seed, uint64_t stream, uint64_t p) {
  const double u = 1.0 - random_uniform(seed, stream, 2 * p);  // in (0, 1]
  const double angle = 2 * std::numbers::pi * random_uniform(seed, stream, 2 * p + 1);
  const double radius = std::sqrt(-2.0 * std::log(u));
  return {radius * std::cos(angle), radius * std::sin(angle)};
}

}  // namespace

void Initializer::fill_normal(const std::string& name, at::Tensor view) const {
  COHORT_CHECK(view.is_contiguous(), "{}: initial weights need a contiguous view", name);
  if (std == 0) return void(view.zero_());
  const auto on_cpu =
      view.device().is_cpu() ? view : at::empty(view.sizes(), view.options().device(at::kCPU));
  const uint64_t stream = stream_of(name);
  const int64_t count = view.numel();
  with_kernel_type("fill_normal", on_cpu, [&]<class T>(T) {
    T* out = elements<T>(on_cpu);
    kernels::parallel_for((count + 1) / 2, 4096, [&](int64_t begin, int64_t end) {
      for (int64_t p = begin; p < end; ++p) {
        const auto [first, second] = normal_pair(seed, stream, p);
        kernels::from_sum(static_cast<kernels::Sum<T>>(std * first), out[2 * p]);
        if (2 * p + 1 < count)
          kernels::from_sum(static_cast<kernels::Sum<T>>(std * second), out[2 * p + 1]);
      }
    });
  });
  if (!view.device().is_cpu()) {
    at::NoGradGuard no_grad;
    view.copy_(on_cpu);
  }
}

at::Tensor Initializer::normal(const std::string& name, at::IntArrayRef shape) const {
  auto value = at::empty(shape, at::TensorOptions().dtype(dtype).device(device));
  fill_normal(name, value);
  return value.set_requires_grad(true);
}

at::Tensor Initializer::ones(at::IntArrayRef shape) const {
  return at::ones(shape, at::TensorOptions().dtype(dtype).device(device)).set_requires_grad(true);
}

at::Tensor Initializer::zeros(at::IntArrayRef shape) const {
  return at::zeros(shape, at::TensorOptions().dtype(dtype).device(device)).set_requires_grad(true);
}

}  // namespace cohort::core
