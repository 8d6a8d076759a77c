// The loops of the optimizers over flat arrays, one pass each, so that they run at memory speed.
// Bytes an element in fp32: adamw 28 (reads weight, grad and two moments, writes three), momentum
// 16, decay_and_add 12, sum_of_squares 4, accumulate_bf16 10. An element's result depends on that
// element alone, not on where a range begins. Ranges do not overlap. T is float or double.
#pragma once
#include <cstdint>

namespace cohort::kernels {

/// The settings of one AdamW step as factors, rounded to T.
template <class T>
struct AdamWFactors {
  T decay;       ///< 1 - lr * weight_decay
  T grad_scale;  ///< Applied to gradients first.
  T beta1, one_minus_beta1;
  T beta2, one_minus_beta2;
  T bias2_sqrt;  ///< sqrt(1 - beta2^t)
  T eps;
  T minus_step_size;  ///< -lr / (1 - beta1^t)
};

/// g = grad * grad_scale;  m = lerp(m, g, one_minus_beta1);  v = v * beta2 + one_minus_beta2 * g^2;
/// weight = weight * decay + minus_step_size * m / (sqrt(v) / bias2_sqrt + eps)
template <class T>
void adamw(T* weight, const T* grad, T* m, T* v, int64_t n, const AdamWFactors<T>& factors);

/// g = grad * grad_scale;  momentum = momentum * mu + g;  direction = g + mu * momentum
template <class T>
void nesterov_momentum(T* momentum, const T* grad, T* direction, int64_t n, T mu, T grad_scale);

/// to = to * decay + alpha * from
template <class T>
void decay_and_add(T* to, const T* from, int64_t n, T decay, T alpha);

/// In fp64. The order of additions is that of one compilation: it depends on the vector length.
template <class T>
double sum_of_squares(const T* values, int64_t n);

/// to[i] += from[i], where `from` is bf16: the upper half of an fp32.
void accumulate_bf16(float* to, const uint16_t* from, int64_t n);

}  // namespace cohort::kernels
