#include "core/nn/swiglu.h"

#include <torch/csrc/autograd/custom_function.h>

#include "core/base/device_branch.h"
#include "core/nn/device/layers.h"
#include "core/nn/kernel_types.h"
#include "kernels/cpu/swiglu.h"

namespace cohort::core {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct SwiGlu : torch::autograd::Function<SwiGlu> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& gate_up) {
    auto shape = gate_up.sizes().vec();
    const int64_t width = shape.back() /= 2;
    auto y = at::empty(shape, gate_up.options());
    with_kernel_type("swiglu", gate_up, [&]<class T>(T) {
      kernels::swiglu_forward<T>(
          elements<T>(gate_up), width ? y.numel() / width : 0, width, elements<T>(y));
    });
    ctx->save_for_backward({gate_up});
    return y;
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const auto gate_up = ctx->get_saved_variables()[0];
    const auto d_y = gradients[0].contiguous();
    const int64_t width = gate_up.size(-1) / 2;
    auto d_gate_up = at::empty_like(gate_up);
    with_kernel_type("swiglu", gate_up, [&]<class T>(T) {
      kernels::swiglu_backward<T>(elements<T>(gate_up),
                                  elements<T>(d_y),
                                  width ? d_y.numel() / width : 0,
                                  width,
                                  elements<T>(d_gate_up));
    });
    return {d_gate_up};
  }
};

}  // namespace

at::Tensor swiglu(const at::Tensor& gate_up) {
  COHORT_CHECK(gate_up.dim() >= 1 && gate_up.size(-1) % 2 == 0,
               "swiglu: the last dim holds gate beside up, so it must be even, not {}",
               gate_up.dim() ? gate_up.size(-1) : 0);
  if (takes_device_branch(gate_up)) return device::swiglu(gate_up);
  return SwiGlu::apply(gate_up.contiguous());
}

}  // namespace cohort::core
