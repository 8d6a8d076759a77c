// The k likeliest classes of one row of logits, and their log-probabilities.
//
// A heap of k entries passes over the row once; the log of the sum of exponentials is
// token_log_probs', taken at the likeliest class, from which the others differ by their logits.
#pragma once
#include <cstdint>

#include "kernels/cpu/token_log_probs.h"

namespace cohort::kernels {

/// token[k], log_prob[k] = log softmax(logits)[token], nats: the likeliest first, of equals the
/// lowest. 1 <= k <= classes. T of the logits, which stay as they are, is float, double or bf16. A
/// function of the row alone.
template <class T>
void likeliest(T* logits, int64_t classes, int64_t k, int32_t* token, double* log_prob);

}  // namespace cohort::kernels
