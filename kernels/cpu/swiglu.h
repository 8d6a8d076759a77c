// SwiGLU on rows: y = silu(gate) * up, silu(g) = g / (1 + e^-g).
//
// One pass each way: forward reads 2 I and writes I elements a row, backward reads 3 I and writes 2
// I. With s = 1 / (1 + e^-gate):
//   d_gate = d_y up s (1 + gate (1 - s)),  d_up = d_y gate s
#pragma once
#include <cstdint>

#include "kernels/cpu/simd.h"

namespace cohort::kernels {

/// gate_up [rows, 2 width]: gate beside up; y [rows, width]. All contiguous.
template <class T>
void swiglu_forward(const T* gate_up, int64_t rows, int64_t width, T* y);

template <class T>
void swiglu_backward(const T* gate_up, const T* d_y, int64_t rows, int64_t width, T* d_gate_up);

}  // namespace cohort::kernels
