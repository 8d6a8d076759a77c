#include "core/optim/muon.h"

#include <algorithm>
#include <cmath>

#include "core/base/error.h"
#include "core/optim/vector_clones.h"
#include "kernels/cpu/parallel.h"

namespace cohort::core {
namespace {

constexpr int64_t kGrain = 1 << 15;
constexpr int kIterations = 5;
constexpr double kA = 3.4445, kB = -4.7750, kC = 2.0315;

template <class T>
inline __attribute__((always_inline)) void momentum_range(T* __restrict momentum,
                                                          const T* __restrict grad,
                                                          T* __restrict direction,
                                                          int64_t n,
                                                          T mu,
                                                          T scale) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const T g = grad[i] * scale;
    const T m = momentum[i] * mu + g;
    momentum[i] = m;
    direction[i] = g + mu * m;
  }
}
COHORT_VECTOR_CLONES void momentum_floats(
    float* m, const float* g, float* d, int64_t n, float mu, float scale) {
  momentum_range(m, g, d, n, mu, scale);
}
COHORT_VECTOR_CLONES void momentum_doubles(
    double* m, const double* g, double* d, int64_t n, double mu, double scale) {
  momentum_range(m, g, d, n, mu, scale);
}

template <class T>
inline __attribute__((always_inline)) void apply_range(
    T* __restrict weight, const T* __restrict update, int64_t n, T decay, T alpha) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) weight[i] = weight[i] * decay + alpha * update[i];
}
COHORT_VECTOR_CLONES void apply_floats(
    float* w, const float* u, int64_t n, float decay, float alpha) {
  apply_range(w, u, n, decay, alpha);
}
COHORT_VECTOR_CLONES void apply_doubles(
    double* w, const double* u, int64_t n, double decay, double alpha) {
  apply_range(w, u, n, decay, alpha);
}

}  // namespace

void muon_momentum(
    float* momentum, const float* grad, float* direction, int64_t n, double mu, double grad_scale) {
  kernels::parallel_for(n, kGrain, [&](int64_t b, int64_t e) {
    momentum_floats(momentum + b, grad + b, direction + b, e - b, float(mu), float(grad_scale));
  });
}
void muon_momentum(double* momentum,
                   const double* grad,
                   double* direction,
                   int64_t n,
                   double mu,
                   double grad_scale) {
  kernels::parallel_for(n, kGrain, [&](int64_t b, int64_t e) {
    momentum_doubles(momentum + b, grad + b, direction + b, e - b, mu, grad_scale);
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
  kernels::parallel_for(n, kGrain, [&](int64_t b, int64_t e) {
    apply_floats(weight + b, update + b, e - b, float(1 - lr * weight_decay), float(-lr * scale));
  });
}
void muon_apply(
    double* weight, const double* update, int64_t n, double lr, double weight_decay, double scale) {
  kernels::parallel_for(n, kGrain, [&](int64_t b, int64_t e) {
    apply_doubles(weight + b, update + b, e - b, 1 - lr * weight_decay, -lr * scale);
  });
}

}  // namespace cohort::core
