#include "core/nn/device/layers.h"

#include "core/nn/kernel_types.h"

namespace cohort::core::device {

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  const auto precise = sum_dtype(x.scalar_type());
  const auto wide = x.to(precise);
  const auto scale = wide.square().mean({-1}, /*keepdim=*/true).add(eps).rsqrt();
  return (wide * scale * weight.to(precise)).to(x.scalar_type());
}

at::Tensor swiglu(const at::Tensor& gate_up) {
  const auto precise = sum_dtype(gate_up.scalar_type());
  const auto halves = gate_up.chunk(2, -1);
  return (at::silu(halves[0].to(precise)) * halves[1].to(precise)).to(gate_up.scalar_type());
}

}  // namespace cohort::core::device
