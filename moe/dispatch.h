// Tokens to the ranks that hold their experts, and the results back. Dropless: an expert receives
// what it is sent.
//
//   plan_dispatch   local sort of the T K (token, expert) pairs by expert, then one exchange of counts
//   dispatch        local permute -> exchange -> local sort by expert
//   combine         the same backwards, ending in the weighted sum over each token's K experts
//
// Experts are numbered so that those of one rank are neighbours: sorted by expert is sorted by rank.
#pragma once
#include <ATen/ATen.h>
#include <ATen/core/ivalue.h>

#include <memory>
#include <vector>

#include "distributed/communicator.h"

namespace cohort::moe {

/// Where every (token, expert) pair of a micro-batch goes: made by plan_dispatch, consumed by
/// dispatch and combine and by their backward passes.
struct DispatchPlan : torch::CustomClassHolder {
  int64_t T = 0, K = 0;
  at::Tensor pair_at;                  ///< int64 [T K]: pair t K + k at each place in expert order.
  at::Tensor place_of;                 ///< int64 [T K]: its inverse.
  std::vector<int64_t> send_rows;      ///< [ep] rows to each rank.
  std::vector<int64_t> receive_rows;   ///< [ep] rows from each rank.
  std::vector<int64_t> expert_rows;    ///< [E / ep] rows of each expert here; their sum is R.
  at::Tensor expert_place;             ///< int64 [R]: place in expert order of each received row;
                                       ///< undefined when ep = 1, where both orders are one.
  at::Tensor load_E;                   ///< int64 [E]: pairs of this rank's tokens for each expert.
  std::shared_ptr<distributed::Communicator> ep;
};
using DispatchPlanPtr = c10::intrusive_ptr<DispatchPlan>;

/// expert_TK int64 [T, K]. Collective over `ep`, whose size divides num_experts.
DispatchPlanPtr plan_dispatch(const at::Tensor& expert_TK,
                              int64_t num_experts,
                              std::shared_ptr<distributed::Communicator> ep);

/// x_TD -> x_RD: a row for each pair whose expert is here, sorted by expert. Differentiable;
/// forward and backward are collective.
at::Tensor dispatch(const at::Tensor& x_TD, const DispatchPlanPtr& plan);

/// out_TD[t] = sum_k gate_TK[t, k] y(t, k). Differentiable in y_RD and gate_TK; forward and backward
/// are collective. gate_TK is fp32 (fp64 for fp64 rows); the sum is taken in that dtype.
at::Tensor combine(const at::Tensor& y_RD, const at::Tensor& gate_TK, const DispatchPlanPtr& plan);

}  // namespace cohort::moe
