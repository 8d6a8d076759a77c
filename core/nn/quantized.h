// Weights held in 8 or 4 bits (kernels/cpu/quantized.h), for passes without a gradient.
//
// A quantised weight stays a tensor of its dtype and shape, so that the layers which hold it need
// not know: its memory is one element, NaN, seen everywhere, and what it stands for hangs on the
// tensor itself. core::linear, grouped_linear, score_tokens and embedding read that; any other
// operation on the weight gives NaN.
#pragma once
#include <ATen/ATen.h>

#include <vector>

namespace cohort::core {

struct QuantizeOptions {
  int bits = 8;         ///< 8 or 4.
  int64_t group = 128;  ///< Inputs of a row that share a scale.
};

/// Quantises a parameter [O, I] or [G, O, I] of fp32 or bf16 in place: every handle of the tensor
/// sees it, its memory is freed, and it needs no gradient any more. Throws Error for another shape
/// or dtype, for values that are not finite and for one that is quantised already.
void quantize_weight(at::Tensor weight, const QuantizeOptions& options);

bool is_quantized(const at::Tensor& weight);

/// What `weight` stands for, fp32; itself in fp32 where it is not quantised.
at::Tensor dequantized(const at::Tensor& weight);

/// Bytes that hold the weight, scales included.
int64_t weight_bytes(const at::Tensor& weight);

/// at::embedding(weight, ids), of a quantised weight too.
at::Tensor embedding(const at::Tensor& weight, const at::Tensor& ids);

/// Rows of x [R, I] times the matrices of a quantised weight [G, O, I], counts[g] rows each, or
/// with one count all times [O, I]; in fp32, bf16 rounded once. The bits of kernels::gemm on the
/// dequantised weight. -> [R, O]. For core::linear.
at::Tensor quantized_linear(const at::Tensor& x,
                            const at::Tensor& weight,
                            const std::vector<int64_t>& counts);

}  // namespace cohort::core
