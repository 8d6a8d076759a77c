#include "core/nn/rms_norm.h"

#include <torch/csrc/autograd/custom_function.h>

#include "core/base/device_branch.h"
#include "core/nn/device/layers.h"
#include "core/nn/kernel_types.h"
#include "kernels/cpu/rms_norm.h"

namespace cohort::core {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// Whether the rows (last dim) lie one fixed stride apart, as in a slice of columns.
bool has_row_stride(const at::Tensor& x) {
  if (x.stride(-1) != 1) return false;
  for (int64_t d = 0; d + 2 < x.dim(); ++d)
    if (x.stride(d) != x.stride(d + 1) * x.size(d + 1)) return false;
  return true;
}

int64_t row_stride(const at::Tensor& x) { return x.dim() > 1 ? x.stride(-2) : x.size(-1); }

struct RmsNorm : torch::autograd::Function<RmsNorm> {
  static at::Tensor forward(AutogradContext* ctx,
                            const at::Tensor& x,
                            const at::Tensor& weight,
                            double eps) {
    const int64_t dim = x.size(-1), rows = dim ? x.numel() / dim : 0;
    auto y = at::empty(x.sizes(), x.options());
    auto r = at::empty({rows}, x.options().dtype(sum_dtype(x.scalar_type())));
    with_kernel_type("rms_norm", x, [&]<class T>(T) {
      kernels::rms_norm_forward<T>(elements<T>(x),
                                   row_stride(x),
                                   elements<T>(weight),
                                   rows,
                                   dim,
                                   eps,
                                   elements<T>(y),
                                   elements<kernels::Sum<T>>(r));
    });
    ctx->save_for_backward({x, weight, r});
    return y;
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const auto saved = ctx->get_saved_variables();
    const auto &x = saved[0], &weight = saved[1], &r = saved[2];
    const auto d_y = gradients[0].contiguous();
    at::Tensor d_x, d_weight;
    if (ctx->needs_input_grad(0)) d_x = at::empty(x.sizes(), x.options());
    if (ctx->needs_input_grad(1)) d_weight = at::empty_like(weight);
    with_kernel_type("rms_norm", x, [&]<class T>(T) {
      kernels::rms_norm_backward<T>(elements<T>(x),
                                    row_stride(x),
                                    elements<T>(weight),
                                    elements<kernels::Sum<T>>(r),
                                    elements<T>(d_y),
                                    r.numel(),
                                    x.size(-1),
                                    elements<T>(d_x),
                                    elements<T>(d_weight));
    });
    return {d_x, d_weight, at::Tensor()};
  }
};

}  // namespace

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  COHORT_CHECK(x.dim() >= 1 && weight.dim() == 1 && weight.size(0) == x.size(-1),
               "rms_norm: weight of {} elements for rows of {}",
               weight.numel(),
               x.dim() ? x.size(-1) : 0);
  COHORT_CHECK(x.scalar_type() == weight.scalar_type(),
               "rms_norm: x is {}, weight is {}",
               at::toString(x.scalar_type()),
               at::toString(weight.scalar_type()));
  if (takes_device_branch(x)) return device::rms_norm(x, weight, eps);
  return RmsNorm::apply(has_row_stride(x) ? x : x.contiguous(), weight.contiguous(), eps);
}

}  // namespace cohort::core
