// AdamW (arXiv:1711.05101, algorithm 2) on flat arrays, in the order of operations of
// torch.optim.AdamW.
//
// One fused pass: 16 bytes read and 12 written an element in fp32, so it runs at memory speed.
#pragma once
#include <ATen/ATen.h>

#include <cstdint>

namespace cohort::core {

/// One step's settings.
struct AdamWStep {
  double lr = 1e-3;
  double beta1 = 0.9, beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0.1;  ///< Decoupled: weights shrink by lr * weight_decay first.
  int64_t t = 1;              ///< Number of this update, from 1 (bias correction).
  double grad_scale = 1.0;    ///< Gradients are multiplied by this first (clipping).
};

/// Updates `n` elements in place:
///   g = grad_scale * grad;  w -= lr * weight_decay * w;  m = lerp(m, g, 1 - beta1);
///   v = beta2 * v + (1 - beta2) * g^2;  w -= lr / (1 - beta1^t) * m / (sqrt(v / (1 - beta2^t)) +
///   eps)
/// An element's result depends on that element alone, not on where slices or threads divide.
void adamw_update(float* weight,
                  const float* grad,
                  float* exp_avg,
                  float* exp_avg_sq,
                  int64_t n,
                  const AdamWStep& step);
void adamw_update(double* weight,
                  const double* grad,
                  double* exp_avg,
                  double* exp_avg_sq,
                  int64_t n,
                  const AdamWStep& step);
/// The same on flat tensors of fp32 or fp64, wherever they are; contiguous on the CPU.
void adamw_update(at::Tensor weight,
                  const at::Tensor& grad,
                  at::Tensor exp_avg,
                  at::Tensor exp_avg_sq,
                  const AdamWStep& step);

}  // namespace cohort::core
