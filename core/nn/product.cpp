#include "core/nn/product.h"

#include "core/nn/linear.h"

namespace cohort::core {

void product(kernels::GemmForm form,
             const at::Tensor& a,
             const at::Tensor& b,
             at::Tensor& c,
             bool accumulate) {
  using kernels::GemmForm;
  if (c.is_cpu() && c.scalar_type() == at::kFloat && a.scalar_type() == at::kFloat &&
      own_fp32_gemm()) {
    kernels::gemm({form,
                   c.size(0),
                   c.size(1),
                   form == GemmForm::kTN ? a.size(0) : a.size(1),
                   a.const_data_ptr<float>(),
                   a.size(1),
                   b.const_data_ptr<float>(),
                   b.size(1),
                   c.data_ptr<float>(),
                   c.size(1),
                   accumulate});
    return;
  }
  const auto left = form == GemmForm::kTN ? a.t() : a;
  const auto right = form == GemmForm::kNT ? b.t() : b;
  if (!accumulate)
    at::mm_out(c, left, right);
  else if (c.scalar_type() == a.scalar_type())
    c.addmm_(left, right);
  else
    c.add_(at::mm(left, right));
}

}  // namespace cohort::core
