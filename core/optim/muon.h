// Muon: momentum whose matrix is made orthogonal before it is applied (Keller Jordan's Muon;
// scale 0.2 * sqrt(max(M, N)) of "Muon is scalable for LLM training", arXiv:2502.16982, so that
// AdamW's learning rates carry over).
#pragma once
#include <ATen/ATen.h>

#include <cstdint>

namespace cohort::core {

/// Nesterov momentum on flat arrays:
///   g = grad_scale * grad;  momentum = mu * momentum + g;  direction = g + mu * momentum
void muon_momentum(
    float* momentum, const float* grad, float* direction, int64_t n, double mu, double grad_scale);
void muon_momentum(double* momentum,
                   const double* grad,
                   double* direction,
                   int64_t n,
                   double mu,
                   double grad_scale);

/// The same on flat tensors, wherever they are; contiguous on the CPU.
void muon_momentum(at::Tensor momentum,
                   const at::Tensor& grad,
                   at::Tensor direction,
                   double mu,
                   double grad_scale);

/// A matrix near U V^T of `direction` = U S V^T: five steps of the quintic Newton-Schulz iteration
///   x <- 3.4445 x + (-4.7750 a + 2.0315 a^2) x,  a = x x^T
/// from x = direction / (|direction| + 1e-7). [M, N], fp32 or fp64, contiguous; the result has the
/// same shape and dtype. A zero matrix stays zero.
at::Tensor newton_schulz(const at::Tensor& direction);

/// What one Muon step multiplies an orthogonal [rows, columns] matrix by, before the learning rate.
double muon_scale(int64_t rows, int64_t columns);

/// weight = (1 - lr * weight_decay) * weight - lr * scale * update, on flat arrays.
void muon_apply(
    float* weight, const float* update, int64_t n, double lr, double weight_decay, double scale);
void muon_apply(
    double* weight, const double* update, int64_t n, double lr, double weight_decay, double scale);

/// The same on flat tensors, wherever they are; contiguous on the CPU.
void muon_apply(
    at::Tensor weight, const at::Tensor& update, double lr, double weight_decay, double scale);

}  // namespace cohort::core
