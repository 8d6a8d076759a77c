#include "core/optim/adamw.h"

#include <cmath>

#include "core/optim/vector_clones.h"
#include "kernels/cpu/parallel.h"

namespace cohort::core {
namespace {

constexpr int64_t kGrain = 1 << 15;

/// Everything that is the same for all elements, computed in double and then rounded, as torch
/// does.
template <class T>
struct Scalars {
  T decay, grad_scale, beta1, one_minus_beta1, beta2, one_minus_beta2, bias2_sqrt, eps,
      minus_step_size;

  explicit Scalars(const AdamWStep& s)
      : decay(static_cast<T>(1 - s.lr * s.weight_decay)),
        grad_scale(static_cast<T>(s.grad_scale)),
        beta1(static_cast<T>(s.beta1)),
        one_minus_beta1(static_cast<T>(1 - s.beta1)),
        beta2(static_cast<T>(s.beta2)),
        one_minus_beta2(static_cast<T>(1 - s.beta2)),
        bias2_sqrt(static_cast<T>(std::sqrt(1 - std::pow(s.beta2, double(s.t))))),
        eps(static_cast<T>(s.eps)),
        minus_step_size(static_cast<T>(-s.lr / (1 - std::pow(s.beta1, double(s.t))))) {}
};

template <class T>
inline __attribute__((always_inline)) void update_range(T* __restrict w,
                                                        const T* __restrict g,
                                                        T* __restrict m,
                                                        T* __restrict v,
                                                        int64_t n,
                                                        const Scalars<T>& scalars) {
  const Scalars<T> s = scalars;
  // at::lerp has two forms; it takes the second from a weight of one half.
  const bool small_lerp = s.one_minus_beta1 < T(0.5);
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const T grad = g[i] * s.grad_scale;
    const T difference = grad - m[i];
    const T m_new =
        small_lerp ? m[i] + s.one_minus_beta1 * difference : grad - difference * s.beta1;
    const T v_new = v[i] * s.beta2 + s.one_minus_beta2 * grad * grad;
    const T denominator = std::sqrt(v_new) / s.bias2_sqrt + s.eps;
    m[i] = m_new;
    v[i] = v_new;
    w[i] = w[i] * s.decay + s.minus_step_size * m_new / denominator;
  }
}

COHORT_VECTOR_CLONES void update_floats(
    float* w, const float* g, float* m, float* v, int64_t n, const Scalars<float>& s) {
  update_range(w, g, m, v, n, s);
}
COHORT_VECTOR_CLONES void update_doubles(
    double* w, const double* g, double* m, double* v, int64_t n, const Scalars<double>& s) {
  update_range(w, g, m, v, n, s);
}

}  // namespace

void adamw_update(float* weight,
                  const float* grad,
                  float* exp_avg,
                  float* exp_avg_sq,
                  int64_t n,
                  const AdamWStep& step) {
  const Scalars<float> s(step);
  kernels::parallel_for(n, kGrain, [&](int64_t b, int64_t e) {
    update_floats(weight + b, grad + b, exp_avg + b, exp_avg_sq + b, e - b, s);
  });
}

void adamw_update(double* weight,
                  const double* grad,
                  double* exp_avg,
                  double* exp_avg_sq,
                  int64_t n,
                  const AdamWStep& step) {
  const Scalars<double> s(step);
  kernels::parallel_for(n, kGrain, [&](int64_t b, int64_t e) {
    update_doubles(weight + b, grad + b, exp_avg + b, exp_avg_sq + b, e - b, s);
  });
}

}  // namespace cohort::core
