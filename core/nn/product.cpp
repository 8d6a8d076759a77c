#include "core/nn/product.h"

#include "core/base/device_branch.h"
#include "core/base/error.h"
#include "core/nn/linear.h"

namespace cohort::core {

void product(kernels::GemmForm form,
             const at::Tensor& a,
             const at::Tensor& b,
             at::Tensor& c,
             bool accumulate) {
  using kernels::GemmForm;
  if (!takes_device_branch(c) && c.scalar_type() == at::kFloat && a.scalar_type() == at::kFloat &&
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

void check_head_operands(const char* op,
                         const at::Tensor& x,
                         const at::Tensor& head,
                         const at::Tensor& target) {
  COHORT_CHECK(x.dim() == 2 && head.dim() == 2 && x.size(1) == head.size(1) &&
                   x.scalar_type() == head.scalar_type(),
               "{}: x {} {} and head {} {} do not fit",
               op,
               fmt::join(x.sizes(), " x "),
               at::toString(x.scalar_type()),
               fmt::join(head.sizes(), " x "),
               at::toString(head.scalar_type()));
  COHORT_CHECK(target.dim() == 1 && target.size(0) == x.size(0) &&
                   target.scalar_type() == at::kLong && target.device().is_cpu(),
               "{}: target must be {} int64 on the CPU, not {} {}",
               op,
               x.size(0),
               fmt::join(target.sizes(), " x "),
               at::toString(target.scalar_type()));
}

}  // namespace cohort::core
