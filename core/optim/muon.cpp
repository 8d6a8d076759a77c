#include "core/optim/muon.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>

#include "core/base/device_branch.h"
#include "core/base/error.h"
#include "kernels/cpu/flat_updates.h"
#include "kernels/cpu/parallel.h"

namespace cohort::core {
namespace {

constexpr int64_t kGrain = 1 << 15;
constexpr int kIterations = 5;
constexpr double kA = 3.4445, kB = -4.7750, kC = 2.0315;

template <class T>
void momentum_step(
    T* momentum, const T* grad, T* direction, int64_t n, double mu, double grad_scale) {
  kernels::parallel_for(n, kGrain, [&](int64_t begin, int64_t end) {
    kernels::nesterov_momentum(momentum + begin,
                               grad + begin,
                               direction + begin,
                               end - begin,
                               static_cast<T>(mu),
                               static_cast<T>(grad_scale));
  });
}

template <class T>
void apply(T* weight, const T* update, int64_t n, double lr, double weight_decay, double scale) {
  const T decay = static_cast<T>(1 - lr * weight_decay), alpha = static_cast<T>(-lr * scale);
  kernels::parallel_for(n, kGrain, [&](int64_t begin, int64_t end) {
    kernels::decay_and_add(weight + begin, update + begin, end - begin, decay, alpha);
  });
}

}  // namespace

void muon_momentum(
    float* momentum, const float* grad, float* direction, int64_t n, double mu, double grad_scale) {
  momentum_step(momentum, grad, direction, n, mu, grad_scale);
}
void muon_momentum(double* momentum,
                   const double* grad,
                   double* direction,
                   int64_t n,
                   double mu,
                   double grad_scale) {
  momentum_step(momentum, grad, direction, n, mu, grad_scale);
}

namespace {

template <class Body>
void with_type(const at::Tensor& tensor, const Body& body) {
  if (tensor.scalar_type() == at::kDouble)
    body(double{});
  else
    body(float{});
}

}  // namespace

void muon_momentum(at::Tensor momentum,
                   const at::Tensor& grad,
                   at::Tensor direction,
                   double mu,
                   double grad_scale) {
  if (takes_device_branch(momentum)) {
    const at::Tensor g = grad * grad_scale;
    momentum.mul_(mu).add_(g);
    direction.copy_(g.add(momentum, mu));
    return;
  }
  with_type(momentum, [&]<class T>(T) {
    muon_momentum(momentum.data_ptr<T>(),
                  grad.const_data_ptr<T>(),
                  direction.data_ptr<T>(),
                  momentum.numel(),
                  mu,
                  grad_scale);
  });
}

at::Tensor newton_schulz(const at::Tensor& direction) {
  COHORT_CHECK(direction.dim() == 2 && (direction.scalar_type() == at::kFloat ||
                                        direction.scalar_type() == at::kDouble),
               "newton_schulz takes an fp32 or fp64 matrix, not {} dims of {}",
               direction.dim(),
               c10::toString(direction.scalar_type()));
  const at::NoGradGuard no_grad;
  // The iteration works on the short side, where x x^T is small.
  const bool tall = direction.size(0) > direction.size(1);
  at::Tensor x = direction / (direction.norm() + 1e-7);
  if (tall) x = x.t().contiguous();
  for (int i = 0; i < kIterations; ++i) {
    const at::Tensor a = at::mm(x, x.t());
    const at::Tensor polynomial = at::addmm(a, a, a, kB, kC);
    x = at::addmm(x, polynomial, x, kA, 1.0);
  }
  return tall ? x.t().contiguous() : x;
}

double muon_scale(int64_t rows, int64_t columns) {
  return 0.2 * std::sqrt(static_cast<double>(std::max(rows, columns)));
}

void muon_apply(
    float* weight, const float* update, int64_t n, double lr, double weight_decay, double scale) {
  apply(weight, update, n, lr, weight_decay, scale);
}
void muon_apply(
    double* weight, const double* update, int64_t n, double lr, double weight_decay, double scale) {
  apply(weight, update, n, lr, weight_decay, scale);
}

void muon_apply(
    at::Tensor weight, const at::Tensor& update, double lr, double weight_decay, double scale) {
  if (takes_device_branch(weight)) {
    weight.mul_(1 - lr * weight_decay).add_(update, -lr * scale);
    return;
  }
  with_type(weight, [&]<class T>(T) {
    muon_apply(
        weight.data_ptr<T>(), update.const_data_ptr<T>(), weight.numel(), lr, weight_decay, scale);
  });
}

}  // namespace cohort::core
