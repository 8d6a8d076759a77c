// Rotary position embedding: pairs (a, b) of a row become (a cos - b sin, b cos + a sin), at
// position p with cos and sin of the table's row p. The gradient is the same rotation with -sin.
#pragma once
#include <cstdint>

#include "kernels/cpu/simd.h"

namespace cohort::kernels {

/// One row in place: x has `dim` elements (even), cos and sin dim / 2. interleave: pairs (2i, 2i +
/// 1), else (i, i + dim / 2). A is float or double.
template <class A>
COHORT_INLINE void rotate_row(
    A* x, const A* cos, const A* sin, int64_t dim, bool interleave, A sign) {
  const int64_t half = dim / 2;
  if (interleave) {
#pragma omp simd
    for (int64_t i = 0; i < half; ++i) {
      const A a = x[2 * i], b = x[2 * i + 1], s = sin[i] * sign;
      x[2 * i] = a * cos[i] - b * s;
      x[2 * i + 1] = b * cos[i] + a * s;
    }
  } else {
    A* y = x + half;
#pragma omp simd
    for (int64_t i = 0; i < half; ++i) {
      const A a = x[i], b = y[i], s = sin[i] * sign;
      x[i] = a * cos[i] - b * s;
      y[i] = b * cos[i] + a * s;
    }
  }
}

/// x, y: [batch, length, heads, dim], x with the strides given (elements; dim is contiguous), y
/// contiguous; cos, sin [length, dim / 2]. sign -1 gives the gradient. y may be x when x is
/// contiguous.
template <class T>
void rope(const T* x,
          const int64_t (&x_strides)[3],
          const Sum<T>* cos,
          const Sum<T>* sin,
          int64_t batch,
          int64_t length,
          int64_t heads,
          int64_t dim,
          bool interleave,
          int sign,
          T* y);

}  // namespace cohort::kernels
