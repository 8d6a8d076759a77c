// Passes over flat gradients.
#pragma once
#include <ATen/ATen.h>

#include <cstdint>

namespace cohort::core {

/// Sum of squares in fp64 of a contiguous fp32 or fp64 tensor. Taken over blocks of fixed size, so
/// it does not depend on the number of threads. Not finite when an element is not.
double sum_of_squares(const at::Tensor& values);

/// to[i] += from[i]: bf16 gradients are collected in fp32.
void accumulate(float* to, const at::BFloat16* from, int64_t n);

}  // namespace cohort::core
