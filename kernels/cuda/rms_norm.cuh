// Device twin of kernels/cpu/rms_norm.h: y = weight * x * r, r = 1 / sqrt(mean(x^2) + eps). T is
// float or bf16, sums are fp32. Pointers are device memory; nothing here waits for the host.
#pragma once
#include <cstdint>

#include "kernels/cuda/device.cuh"

namespace cohort::kernels::COHORT_DEVICE {

/// x: rows of `dim` elements, x_stride elements apart; y [rows, dim]; r [rows] may be null.
template <class T>
void rms_norm_forward(const T* x,
                      int64_t x_stride,
                      const T* weight,
                      int64_t rows,
                      int64_t dim,
                      float eps,
                      T* y,
                      float* r,
                      Stream stream);

/// Bytes of workspace for d_weight.
size_t rms_norm_workspace(int64_t rows, int64_t dim);

/// d_y, d_x [rows, dim] and d_weight [dim] are contiguous. d_x or d_weight may be null.
template <class T>
void rms_norm_backward(const T* x,
                       int64_t x_stride,
                       const T* weight,
                       const float* r,
                       const T* d_y,
                       int64_t rows,
                       int64_t dim,
                       T* d_x,
                       T* d_weight,
                       void* workspace,
                       Stream stream);

}  // namespace cohort::kernels::COHORT_DEVICE
