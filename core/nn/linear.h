// Matrix products of the model. fp32 runs on Cohort's own GEMM where that beats LibTorch's (see
// docs/benchmarks.md), everything else on at::mm.
#pragma once
#include <ATen/ATen.h>

#include <vector>

namespace cohort::core {

/// x [..., I] times weight^T, weight [O, I] -> [..., O]; differentiable in both. One dtype.
at::Tensor linear(const at::Tensor& x, const at::Tensor& weight);

/// Rows of x [R, I] are sorted by group: the first counts[0] rows are multiplied by weight[0]^T, and
/// so on. weight [G, O, I], sum of counts = R -> [R, O]; differentiable in both (a group without
/// rows gets a gradient of zeros; R = 0 is fine). One dtype.
at::Tensor grouped_linear(const at::Tensor& x,
                          const at::Tensor& weight,
                          const std::vector<int64_t>& counts);

}  // namespace cohort::core
