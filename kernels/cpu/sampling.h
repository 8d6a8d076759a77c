// Drawing a token from a row of logits.
//
// e_i = e^((l_i - max) / T) is taken once over the row; what top_k, top_p and min_p leave out is
// set to zero, in this order; the draw walks the cumulative sum in the order of ids until it passes
// u times the total. Two passes over V floats, and a sort of the candidates only with top_p.
#pragma once
#include <cstdint>

#include "kernels/cpu/simd.h"

namespace cohort::kernels {

struct SamplingRule {
  double temperature = 1;  ///< 0: the most likely token, the lowest id of equals; nothing is drawn.
  int64_t top_k = 0;       ///< 0: all. Equals of the k-th largest stay in.
  double top_p = 1;        ///< The fewest tokens whose probability adds up to it, at least one.
  double min_p = 0;        ///< Tokens at least so many times as likely as the likeliest.
};

/// Token of logits [classes] for a uniform u in [0, 1). work: `classes` floats (doubles for
/// double). A function of its arguments alone. NaN logits count as the least likely; a row of only
/// NaN or -infinity gives token -1.
template <class T>
int64_t sample_token(
    const T* logits, int64_t classes, const SamplingRule& rule, double u, Sum<T>* work);

}  // namespace cohort::kernels
