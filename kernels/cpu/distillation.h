// Cross-entropy of one class a row of logits, mixed with the divergence from a teacher's likeliest
// classes, and the gradient in place.
//
// With q = softmax(l), a teacher's classes c_1 .. c_k of log-probabilities t_1 .. t_k, and one
// bucket for the rest:
//
//   a_i = log q_{c_i}, a_0 = log of the sum of q over all other classes
//   t_0 = log max(1 - sum_i exp t_i, kLeastRest)
//   P = softmax(t / temperature), Q = softmax(a / temperature)   over the k + 1 buckets
//   D = temperature^2 sum_i P_i log(P_i / Q_i)   forward;   reverse: P and Q change places
//   L = (1 - weight) (-log q_target) + weight D
//
// (Without a class outside the k, bucket 0 is left out.) With g_i = d D / d a_i, which sum to 0:
// forward g_i = temperature (Q_i - P_i); reverse g_i = temperature Q_i (log(Q_i / P_i) - R), R the
// divergence without temperature^2. Then d D / d l_j is g_i for j = c_i, and g_0 q_j / q_rest for
// the others: one pass over the exponentials of the row, which is kept in the first-level cache.
// The sum over the rest is taken over its classes, not as 1 minus the others. A row's results
// depend on the row alone.
#pragma once
#include <cstdint>

#include "kernels/cpu/simd.h"

namespace cohort::kernels {

/// A teacher's probabilities in fp32 add up to 1 within about this: less of a rest is not known.
inline constexpr double kLeastRest = 1e-6;

struct DistillationRule {
  double weight = 0.5;  ///< 0 .. 1
  bool reverse = false;
  double temperature = 1;  ///< Above 0.
};

/// For each row: nats[i] = -log q_target, divergence[i] = D, and with `gradient` logits become
/// dL/dl, else they stay. top_tokens [rows, k]: different classes, -1 after a row's last, at least
/// one; top_log_probs [rows, k], nats. logits [rows, classes] contiguous, T float, double or bf16
/// (summed in fp32, gradients rounded once); what is taken of k + 1 buckets is fp64. 0 <= target <
/// classes. A NaN in a row makes its results NaN.
template <class T>
void distillation(T* logits,
                  const int64_t* target,
                  const int32_t* top_tokens,
                  const double* top_log_probs,
                  int64_t rows,
                  int64_t classes,
                  int64_t k,
                  const DistillationRule& rule,
                  bool gradient,
                  double* nats,
                  double* divergence);

}  // namespace cohort::kernels
