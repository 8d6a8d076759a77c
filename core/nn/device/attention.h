// The device branch of attention: our kernels where there are any for the dtype and the head sizes
// (kernels/device_table.h), else LibTorch's scaled_dot_product_attention over each document, and
// decoding as gathered products. Differentiable.
#pragma once
#include "core/nn/attention_op.h"
#include "core/nn/decode_op.h"

namespace cohort::core::device {

/// int64 [B S] on `device`: the position of every token of the layout.
at::Tensor positions(const AttentionLayout& layout, at::Device device);

/// int64 [runs + 1] on `device`: the first token of each run of the layout, and the number of
/// tokens.
at::Tensor run_starts(const AttentionLayout& layout, at::Device device);

/// attention_op (core/nn/attention_op.h); the arguments are checked there.
at::Tensor attention(const AttentionInputs& in,
                     const Rotation& rotation,
                     const AttentionLayout& layout,
                     double scale);

/// Whether a kernel decodes MLA's cache for these sizes; `like`: a tensor of the model.
bool has_decode_kernel(const at::Tensor& like, int64_t latent_dim, int64_t rope_dim);

/// Fills in what the device branch of decoding reads of `layout`, once a pass: the spans for the
/// kernel, else the rows.
void prepare(DecodeLayout& layout, at::Device device, bool for_kernel);

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
