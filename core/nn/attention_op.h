// The differentiable attention product that both attention layers and `causal_attention` call.
#pragma once
#include <ATen/ATen.h>

#include "core/nn/attention.h"

namespace cohort::core {

/// What a layer hands over: positions not yet rotated, MLA's keys and values as its projection
/// leaves them. All of one dtype; slices of larger tensors are read in place.
struct AttentionInputs {
  at::Tensor q;  ///< [B, S, H, Dqk]
  at::Tensor
      k;  ///< [B, S, Hkv, Dk]; with an undefined v, [B, S, Hkv, Dk + Dv]: keys beside values.
  at::Tensor k_shared;  ///< Undefined (Dk = Dqk), or [B, S, R]: the last R channels of all keys, R
                        ///< = Dqk - Dk (MLA's rotating part).
  at::Tensor v;         ///< [B, S, Hkv, Dv]
};

/// How the last 2 x cos.size(1) channels of q and k rotate.
struct Rotation {
  at::Tensor cos, sin;  ///< [>= S, R / 2]; undefined: no rotation.
  bool interleave = false;
};

/// softmax(scale q k^T) v within each run -> [B, S, H, Dv].
at::Tensor attention_op(const AttentionInputs& in,
                        const Rotation& rotation,
                        const AttentionLayout& layout,
                        double scale);

}  // namespace cohort::core
