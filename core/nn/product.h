// A product of contiguous matrices without a graph, for the chunked losses: on the same GEMM as
// core::linear takes, so that logits of a chunk have the bits of those that core::linear(x, head)
// gives where kernels::gemm runs (core/nn/linear.h).
#pragma once
#include <ATen/ATen.h>

#include "kernels/cpu/gemm.h"

namespace cohort::core {

/// c (+)= a b, a b^T or a^T b (`form`) of contiguous matrices of one dtype; c may be fp32 where a
/// and b are bf16: then sums over several products are kept in fp32.
void product(kernels::GemmForm form,
             const at::Tensor& a,
             const at::Tensor& b,
             at::Tensor& c,
             bool accumulate);

/// Throws Error, naming `op`, unless x [T, D] and head [V, D] are of one dtype and target is int64
/// [T] on the CPU, wherever x and head are.
void check_head_operands(const char* op,
                         const at::Tensor& x,
                         const at::Tensor& head,
                         const at::Tensor& target);

}  // namespace cohort::core
