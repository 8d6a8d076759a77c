// Rotary position embedding (arXiv:2104.09864) and its YaRN extension (arXiv:2309.00071) as
// DeepSeek-V3 applies it.
#pragma once
#include <ATen/ATen.h>

#include "core/config/config.h"

namespace cohort::core {

/// cos and sin of position x frequency, times the attention factor of YaRN (1 by default).
struct RopeTable {
  at::Tensor cos, sin;  ///< [S, dim / 2], fp32 (fp64 in an fp64 model).
  double softmax_factor =
      1.0;  ///< DeepSeek-V3: head_dim^-0.5 is multiplied by mscale(factor, mscale_all_dim)^2.
};

/// Inverse frequencies [dim / 2] in fp64 and the factor on cos and sin.
struct RopeFrequencies {
  at::Tensor inv_freq;
  double attention_factor, softmax_factor;
};
RopeFrequencies rope_frequencies(const RopeConfig& config, int64_t dim);

/// Table for positions 0 .. length-1.
RopeTable rope_table(const RopeConfig& config, int64_t dim, int64_t length, at::ScalarType dtype);

/// Rotates x [B, S, H, dim] by its position along dim 1; differentiable. interleave: pairs (2i,
/// 2i+1) rotate and stay in place (Hugging Face de-interleaves the result: a fixed permutation of q
/// and k alike, which their dot product does not see); otherwise pairs (i, i + dim/2) do.
at::Tensor apply_rope(const at::Tensor& x, const RopeTable& table, bool interleave);

}  // namespace cohort::core
