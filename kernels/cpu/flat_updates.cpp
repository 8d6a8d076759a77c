#include "kernels/cpu/flat_updates.h"

#include <cmath>
#include <cstring>

namespace cohort::kernels {
namespace {

template <bool small_lerp, class T>
void adamw_loop(T* __restrict weight,
                const T* __restrict grad,
                T* __restrict m,
                T* __restrict v,
                int64_t n,
                const AdamWFactors<T> f) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const T g = grad[i] * f.grad_scale;
    const T difference = g - m[i];
    const T m_new = small_lerp ? m[i] + f.one_minus_beta1 * difference : g - difference * f.beta1;
    const T v_new = v[i] * f.beta2 + f.one_minus_beta2 * g * g;
    const T denominator = std::sqrt(v_new) / f.bias2_sqrt + f.eps;
    m[i] = m_new;
    v[i] = v_new;
    weight[i] = weight[i] * f.decay + f.minus_step_size * m_new / denominator;
  }
}

}  // namespace

template <class T>
void adamw(T* weight, const T* grad, T* m, T* v, int64_t n, const AdamWFactors<T>& factors) {
  // As at::lerp, which takes its second form from a weight of one half on.
  if (factors.one_minus_beta1 < T(0.5))
    adamw_loop<true>(weight, grad, m, v, n, factors);
  else
    adamw_loop<false>(weight, grad, m, v, n, factors);
}

template <class T>
void nesterov_momentum(T* __restrict momentum,
                       const T* __restrict grad,
                       T* __restrict direction,
                       int64_t n,
                       T mu,
                       T grad_scale) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const T g = grad[i] * grad_scale;
    const T m = momentum[i] * mu + g;
    momentum[i] = m;
    direction[i] = g + mu * m;
  }
}

template <class T>
void decay_and_add(T* __restrict to, const T* __restrict from, int64_t n, T decay, T alpha) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) to[i] = to[i] * decay + alpha * from[i];
}

template <class T>
double sum_of_squares(const T* values, int64_t n) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i)
    sum += static_cast<double>(values[i]) * static_cast<double>(values[i]);
  return sum;
}

void accumulate_bf16(float* __restrict to, const uint16_t* __restrict from, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t bits = static_cast<uint32_t>(from[i]) << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    to[i] += value;
  }
}

template void adamw(float*, const float*, float*, float*, int64_t, const AdamWFactors<float>&);
template void adamw(double*, const double*, double*, double*, int64_t, const AdamWFactors<double>&);
template void nesterov_momentum(float*, const float*, float*, int64_t, float, float);
template void nesterov_momentum(double*, const double*, double*, int64_t, double, double);
template void decay_and_add(float*, const float*, int64_t, float, float);
template void decay_and_add(double*, const double*, int64_t, double, double);
template double sum_of_squares(const float*, int64_t);
template double sum_of_squares(const double*, int64_t);

}  // namespace cohort::kernels
