// Moving rows between tokens and experts where the tensors are on a device: our kernels where there
// are any (core/base/device_kernels.h), else LibTorch's operations. Not differentiable: the steps
// of moe/dispatch.cpp and of its backward.
#pragma once
#include <ATen/ATen.h>

namespace cohort::moe::device {

struct SortedPairs {
  at::Tensor pair_at,
      place_of;       ///< int64 [pairs]: the pair at each place in expert order; its inverse.
  at::Tensor load_E;  ///< int64 [E]
};
/// Stable, by expert: int64 [T, K].
SortedPairs sort_pairs(const at::Tensor& expert_TK, int64_t num_experts);

/// rows[index[i] / divisor]
at::Tensor gather(const at::Tensor& rows, const at::Tensor& index, int64_t divisor);

/// out[index[i]] = rows[i]; index is a permutation.
at::Tensor scatter(const at::Tensor& rows, const at::Tensor& index);

/// [T, D]: sum_k gate[t, k] pairs[place_of[t K + k]]; gate undefined: ones.
at::Tensor combine(const at::Tensor& pairs,
                   const at::Tensor& gate,
                   const at::Tensor& place_of,
                   int64_t T,
                   int64_t K);

struct CombineGradients {
  at::Tensor d_pairs, d_gate;
};
CombineGradients combine_backward(const at::Tensor& d_out,
                                  const at::Tensor& pairs,
                                  const at::Tensor& gate,
                                  const at::Tensor& place_of);

}  // namespace cohort::moe::device
