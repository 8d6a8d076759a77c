// The decoding product that both attention layers call: tokens over a cache, without a graph.
#pragma once
#include <ATen/ATen.h>

#include "core/nn/attention.h"
#include "core/nn/attention_op.h"

namespace cohort::core {

/// How keys and values lie in a row of the cache: key heads first, one after another.
struct CachedHeads {
  int64_t kv_heads = 1, v_dim = 0;
  int64_t v_offset = 0;  ///< Where value head 0 begins.
};

/// Writes x [T, heads, dim] to channels [at, ...) of the rows layout.slot, the last channels of
/// each head rotated by position.
void cache_tokens(const at::Tensor& x,
                  const Rotation& rotation,
                  const DecodeLayout& layout,
                  int64_t at,
                  const at::Tensor& cache);

/// q [T, H, Dqk], not yet rotated -> [T, H, v_dim].
at::Tensor decode_op(const at::Tensor& q,
                     const Rotation& rotation,
                     const DecodeLayout& layout,
                     const CachedHeads& heads,
                     double scale,
                     const at::Tensor& cache);

}  // namespace cohort::core
