// Passes over flat gradients.
#pragma once
#include <ATen/ATen.h>

#include <cstdint>

namespace cohort::core {

/// Sum of squares in fp64 of a contiguous fp32 or fp64 tensor. Taken over blocks of fixed size, so
/// it does not depend on the number of threads. Not finite when an element is not.
double sum_of_squares(const at::Tensor& values);
/// The same as a scalar fp64 tensor beside the values, without waiting for their device; its bits
/// may differ.
at::Tensor sum_of_squares_on_device(const at::Tensor& values);

/// to[i] += from[i]: bf16 gradients are collected in fp32.
void accumulate(float* to, const at::BFloat16* from, int64_t n);
/// The same on contiguous tensors, wherever they are.
void accumulate(at::Tensor& to, const at::Tensor& from);

}  // namespace cohort::core
