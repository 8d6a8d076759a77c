// The device branch of attention: LibTorch's scaled_dot_product_attention over each document, and
// decoding as gathered products. Differentiable through LibTorch.
#pragma once
#include "core/nn/attention_op.h"
#include "core/nn/decode_op.h"

namespace cohort::core::device {

/// int64 [B S] on `device`: the position of every token of the layout.
at::Tensor positions(const AttentionLayout& layout, at::Device device);

/// attention_op (core/nn/attention_op.h); the arguments are checked there.
at::Tensor attention(const AttentionInputs& in,
                     const Rotation& rotation,
                     const AttentionLayout& layout,
                     double scale);

/// Fills in what the device branch of decoding reads of `layout`, once a pass.
void prepare(DecodeLayout& layout, at::Device device);

/// cache_tokens and decode_op (core/nn/decode_op.h) over a prepared layout; the arguments are
/// checked there.
void cache_tokens(const at::Tensor& x,
                  const Rotation& rotation,
                  const DecodeLayout& layout,
                  int64_t at,
                  const at::Tensor& cache);
at::Tensor decode(const at::Tensor& q,
                  const Rotation& rotation,
                  const DecodeLayout& layout,
                  const CachedHeads& heads,
                  double scale,
                  const at::Tensor& cache);

}  // namespace cohort::core::device
