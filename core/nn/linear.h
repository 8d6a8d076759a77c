// Matrix products of the model. fp32 on the CPU runs on Cohort's own GEMM where that beats
// LibTorch's (kernels::gemm_preferred, docs/benchmarks.md), everything else on at::mm. The
// environment variable COHORT_GEMM=own|torch decides otherwise; read once.
//
// On the own GEMM a row of y has the same bits whatever other rows are computed with it, whatever
// their group, and whatever the number of threads; at::mm promises none of that.
//
// A quantised weight (core/nn/quantized.h) is multiplied as such, without a graph.
//
// No second derivative: a backward with create_graph throws Error.
#pragma once
#include <ATen/ATen.h>

#include <vector>

namespace cohort::core {

/// x [..., I] times weight^T, weight [O, I] -> [..., O]; differentiable in both. One dtype.
at::Tensor linear(const at::Tensor& x, const at::Tensor& weight);

/// Rows of x [R, I] are sorted by group: the first counts[0] rows are multiplied by weight[0]^T,
/// and so on. weight [G, O, I], sum of counts = R -> [R, O]; differentiable in both (a group
/// without rows gets a gradient of zeros; R = 0 is fine). One dtype.
at::Tensor grouped_linear(const at::Tensor& x,
                          const at::Tensor& weight,
                          const std::vector<int64_t>& counts);

/// While one is alive, weights do not change: the products of this thread without a graph keep each
/// weight as the GEMM wants it, so that passes of few rows (decoding) do not arrange it anew each
/// time. Same bits. Costs once more the memory of the weights used, fp32 on Cohort's GEMM only;
/// nothing otherwise. Scopes may nest, and share then.
class SteadyWeights {
 public:
  SteadyWeights();
  ~SteadyWeights();
  SteadyWeights(const SteadyWeights&) = delete;
  SteadyWeights& operator=(const SteadyWeights&) = delete;
};

/// Whether fp32 products on the CPU run on kernels::gemm: for who calls it without a graph.
bool own_fp32_gemm();

}  // namespace cohort::core
