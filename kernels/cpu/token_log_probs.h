// Log-probability of one class a row of logits, the entropy of the row's distribution, and the
// gradient of the former in place.
//
// As in cross_entropy.h a row stays in the first-level cache over its passes: largest value;
// exponentials e_j of d_j = (l_j - largest) / temperature with the sums S of e_j and U of e_j d_j;
// and, for a gradient, e_j scaled. The entropy is log S - U / S: two terms that are not negative,
// so nothing cancels. The difference is taken before it is scaled: at temperature 1 nothing is
// rounded, and the largest logit has d = 0 exactly at any temperature. The bits of a row's results
// depend on the row alone.
#pragma once
#include <cstdint>

#include "kernels/cpu/simd.h"

namespace cohort::kernels {

/// With p = softmax(inverse_temperature * logits[i]): log_prob[i] = log p[target[i]] and entropy[i]
/// = -sum_j p_j log p_j in nats, a p_j of 0 adding 0. `coefficient` null: logits stay; else logits
/// become coefficient[i] * inverse_temperature * (onehot(target[i]) - p), the gradient of sum_i
/// coefficient[i] log_prob[i]. logits [rows, classes] contiguous, 0 < classes, 0 <= target <
/// classes, 0 < inverse_temperature. T of the logits is float, double or bf16 (summed in fp32,
/// gradients rounded once). A NaN in a row makes its results NaN.
template <class T>
void token_log_probs(T* logits,
                     const int64_t* target,
                     int64_t rows,
                     int64_t classes,
                     double inverse_temperature,
                     const double* coefficient,
                     double* log_prob,
                     double* entropy);

}  // namespace cohort::kernels
