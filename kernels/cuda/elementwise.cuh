// Device twins of kernels/cpu/{swiglu,rope,flat_updates}.h: one pass over memory each. T is float
// or bf16, computed with as fp32. Pointers are device memory; nothing here waits for the host.
#pragma once
#include <cstdint>

#include "kernels/cuda/device.cuh"

namespace cohort::kernels::COHORT_DEVICE {

/// gate_up [rows, 2 width]: gate beside up; y [rows, width] = silu(gate) * up.
template <class T>
void swiglu_forward(const T* gate_up, int64_t rows, int64_t width, T* y, Stream stream);
template <class T>
void swiglu_backward(
    const T* gate_up, const T* d_y, int64_t rows, int64_t width, T* d_gate_up, Stream stream);

/// x [batch, length, heads, dim] with the strides of its first three (elements), y contiguous; cos,
/// sin [length, dim / 2]. interleave: pairs (2i, 2i + 1), else (i, i + dim / 2). sign -1 gives the
/// gradient.
struct RopeShape {
  int64_t strides[3];
  int64_t batch, length, heads, dim;
  bool interleave;
  int sign;
};
template <class T>
void rope(
    const RopeShape& shape, const T* x, const float* cos, const float* sin, T* y, Stream stream);

/// The settings of one AdamW step as factors, as AdamWFactors<float> of the CPU twin.
struct AdamWStep {
  float decay, grad_scale, beta1, one_minus_beta1, beta2, one_minus_beta2, bias2_sqrt, eps,
      minus_step_size;
};
/// One parameter: fp32 master, moments and gradient (fp32 or bf16) of n elements; weight_bf16,
/// where not null, receives the updated weight rounded.
template <class Grad>
struct AdamWTensor {
  float* weight;
  const Grad* grad;
  float *m, *v;
  bf16* weight_bf16;
  int64_t n;
};
/// All tensors in ceil(count / 24) launches; the bits of the CPU twin.
template <class Grad>
void adamw(const AdamWTensor<Grad>* tensors, int64_t count, const AdamWStep& step, Stream stream);

}  // namespace cohort::kernels::COHORT_DEVICE
