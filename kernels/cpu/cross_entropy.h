// Cross-entropy of rows of logits, and its gradient in place.
//
// A row of fp32 logits (V = 4096: 16 KB) stays in the first-level cache over its three passes:
// largest value; exponentials and their sum; scaled by 1 / sum, minus one at the target. Read and
// written once.
#pragma once
#include <cstdint>

#include "kernels/cpu/simd.h"

namespace cohort::kernels {

/// loss[i] = log sum_j e^logits[i][j] - logits[i][target[i]]; 0 where target[i] < 0. With
/// `gradient`, logits become d loss / d logits (a row of zeros where there is no target); without,
/// they stay. logits [rows, classes] contiguous, 0 < classes, target < classes. T of the logits is
/// float, double or bf16 (summed in fp32, gradients rounded once).
template <class T>
void cross_entropy(
    T* logits, const int64_t* target, int64_t rows, int64_t classes, bool gradient, double* loss);

}  // namespace cohort::kernels
