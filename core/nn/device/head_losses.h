// The device branches of the two passes over x head^T that never hold [tokens, vocab]. Logits are
// taken in chunks; nothing here waits for the device.
#pragma once
#include <ATen/ATen.h>

namespace cohort::core::device {

struct CrossEntropy {
  at::Tensor loss;    ///< Scalar fp64: the sum over rows.
  at::Tensor d_x;     ///< [T, D] as x, or undefined.
  at::Tensor d_head;  ///< [V, D] in the dtype of sums, or undefined.
};
/// Rows of x [T, D] all have a target, int64 [T] on x's device.
CrossEntropy cross_entropy(const at::Tensor& x,
                           const at::Tensor& head,
                           const at::Tensor& target,
                           bool want_x,
                           bool want_head);

struct HeadRows {
  at::Tensor x, head, target;  ///< [T, D], [V, D], int64 [T] on x's device.
  double inverse_temperature;
};
/// Fills log_prob and entropy, fp64 [T] on x's device.
void token_log_probs(const HeadRows& in, at::Tensor& log_prob, at::Tensor& entropy);
/// Gradients of sum_i coefficient_i log_prob_i (coefficient fp64 [T]), where wanted; d_head in the
/// dtype of sums.
void token_log_probs_backward(const HeadRows& in,
                              const at::Tensor& coefficient,
                              bool want_x,
                              bool want_head,
                              at::Tensor& d_x,
                              at::Tensor& d_head);

}  // namespace cohort::core::device
