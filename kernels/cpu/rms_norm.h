// RMSNorm on rows: y = weight * x * r, r = 1 / sqrt(mean(x^2) + eps).
//
// Forward reads x twice, the second time from the cache, and writes y and one r a row. Backward
// needs x and r alone:
//   d_x = r (g - x r^2 mean(g x)),  g = weight * d_y
//   d_weight = sum over rows of d_y x r, in partial sums of kRowsPerPartial rows that are added in
//   order, so that it does not depend on the number of threads.
#pragma once
#include <cstdint>

#include "kernels/cpu/simd.h"

namespace cohort::kernels {

/// x: rows of `dim` elements, x_stride elements apart; y [rows, dim]; r [rows] may be null.
template <class T>
void rms_norm_forward(const T* x,
                      int64_t x_stride,
                      const T* weight,
                      int64_t rows,
                      int64_t dim,
                      double eps,
                      T* y,
                      Sum<T>* r);

/// d_y, d_x [rows, dim] and d_weight [dim] are contiguous. d_x or d_weight may be null.
template <class T>
void rms_norm_backward(const T* x,
                       int64_t x_stride,
                       const T* weight,
                       const Sum<T>* r,
                       const T* d_y,
                       int64_t rows,
                       int64_t dim,
                       T* d_x,
                       T* d_weight);

}  // namespace cohort::kernels
