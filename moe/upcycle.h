// A dense model made into a mixture of experts that computes the same function (Sparse Upcycling,
// arXiv:2212.05055; with finer experts, arXiv:2410.07524).
//
// SwiGLU is a sum over its inner units, so an MLP of I units is the sum of G slices of I / G units
// each. S of the slices become the shared experts, which every token passes. Of each of the other
// R = G - S slices there are C copies, R C = E routed experts. Copy c of slice r is expert c R + r.
//
// All R experts of one copy get the same router row, drawn at random ("virtual group
// initialisation", arXiv:2410.07524, section 3.2): a token gives them equal affinities, so the best
// K = k R experts are the k best copies, whole. Gates normalised to one and scaled by R then weigh
// the copies of each slice by one in all:
//   sum over chosen (c, r) of R g_c / (R sum of g) MLP_r(x) = sum over r of MLP_r(x)
// whatever the router says. The result differs from the dense model by rounding alone. From the
// first step on, copies differ by the tokens and gates that they get, slices by what they compute.
//
// Where this departs from the papers: they keep softmax before top-k without normalising and
// correct the outputs by a scale that fits random gates on average; normalised gates make it exact.
#pragma once
#include <ATen/ATen.h>

#include <functional>
#include <string>
#include <vector>

#include "core/config/config.h"

namespace cohort::moe {

struct UpcycleOptions {
  int64_t experts = 8;       ///< E: routed experts of a layer, a multiple of granularity - shared.
  int64_t top_k = 2;         ///< K: of them for a token, a multiple of granularity - shared.
  int64_t granularity = 1;   ///< G: slices that an MLP is cut into; divides its inner size.
  int64_t shared = 0;        ///< S < G: slices that become shared experts (deepseek_v3 only).
  int64_t dense_layers = 0;  ///< First layers that stay dense (deepseek_v3 only).
  uint64_t seed = 1;         ///< Of the router rows, Normal(0, initializer_range).
};

/// The config of the result: deepseek_v3 with routed_scaling_factor R, or for qwen3 a qwen3_moe,
/// which has no such factor: R is multiplied into down_proj, which is exact for powers of two and
/// so allowed for those only. Throws InputError where `dense` has experts already, is a qwen2 (no
/// MoE architecture here has biases on q, k and v), or does not fit the options.
core::ModelConfig upcycled_config(const core::ModelConfig& dense, const UpcycleOptions& options);

/// How one tensor of the result comes about.
struct UpcycledTensor {
  enum class Kind { kCopy, kRows, kColumns, kRouter, kZeros };

  std::string name;
  std::vector<int64_t> shape;  ///< Of kCopy: empty, as the source's.
  Kind kind = Kind::kCopy;
  std::string source;            ///< Name in the dense model; of kRouter, whose dtype is taken.
  int64_t first = 0, count = 0;  ///< Rows or columns of the source; of kRouter: C, R.
  double scale = 1;
};

/// Every tensor of the result, layer by layer: those of `names` (the dense model's), MLPs replaced.
/// Throws InputError naming every MLP tensor that `names` lacks.
std::vector<UpcycledTensor> plan_upcycling(const core::ModelConfig& dense,
                                           const UpcycleOptions& options,
                                           const std::vector<std::string>& names);

/// The tensor, contiguous, in the source's dtype (a selection bias in fp32).
at::Tensor upcycled_tensor(const UpcycledTensor& tensor,
                           const core::ModelConfig& moe,
                           uint64_t seed,
                           const std::function<at::Tensor(const std::string&)>& source);

}  // namespace cohort::moe
