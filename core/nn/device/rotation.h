// The device branch of rotary position embedding.
#pragma once
#include <ATen/ATen.h>

namespace cohort::core::device {

/// x [..., C] with its last R = 2 cos.size(-1) channels rotated, in fp32 (fp64 for fp64): the
/// caller rounds. cos and sin [..., R / 2] broadcast over x's other dims. interleave: as in
/// apply_rope. Differentiable.
at::Tensor rotated(const at::Tensor& x,
                   const at::Tensor& cos,
                   const at::Tensor& sin,
                   bool interleave);

}  // namespace cohort::core::device
