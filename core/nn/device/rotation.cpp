#include "core/nn/device/rotation.h"

#include "core/nn/kernel_types.h"

namespace cohort::core::device {

at::Tensor rotated(const at::Tensor& x,
                   const at::Tensor& cos,
                   const at::Tensor& sin,
                   bool interleave) {
  const auto precise = sum_dtype(x.scalar_type());
  const int64_t rotating = 2 * cos.size(-1), still = x.size(-1) - rotating;
  const auto c = cos.to(precise), s = sin.to(precise);
  const auto turning = x.narrow(-1, still, rotating).to(precise);
  const auto pairs = interleave ? turning.unflatten(-1, {rotating / 2, 2})
                                : turning.unflatten(-1, {2, rotating / 2});
  const int64_t of_pair = interleave ? -1 : -2;
  const auto first = pairs.select(of_pair, 0), second = pairs.select(of_pair, 1);
  const auto turned =
      at::stack({first * c - second * s, second * c + first * s}, interleave ? -1 : -2).flatten(-2);
  return still == 0 ? turned : at::cat({x.narrow(-1, 0, still).to(precise), turned}, -1);
}

}  // namespace cohort::core::device
