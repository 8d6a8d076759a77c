#include "core/nn/head_linear.h"

#include <torch/csrc/autograd/custom_function.h>

#include "core/base/device_branch.h"
#include "core/base/error.h"
#include "core/nn/linear.h"
#include "kernels/cpu/gemm.h"

namespace cohort::core {
namespace {

using kernels::GemmForm;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// [T, H, C] or [H, R, C] seen from one head: a matrix whose rows lie `leading` floats apart.
struct HeadMatrix {
  const at::Tensor& t;
  int64_t head_dim;  ///< Which dim counts heads.
  float* data(int64_t head) const {
    return static_cast<float*>(t.data_ptr()) + head * t.stride(head_dim);
  }
  int64_t leading() const { return t.stride(1 - head_dim); }
};

/// c_h = a_h b_h, a_h b_h^T or a_h^T b_h for each head; a and c of tokens count heads in dim 1.
void products(
    GemmForm form, HeadMatrix a, HeadMatrix b, HeadMatrix c, int64_t m, int64_t n, int64_t k) {
  const int64_t heads = a.t.size(a.head_dim);
  if (a.t.scalar_type() == at::kFloat && !takes_device_branch(a.t) && own_fp32_gemm()) {
    std::vector<kernels::GemmProduct> list;
    for (int64_t h = 0; h < heads; ++h)
      list.push_back({form,
                      m,
                      n,
                      k,
                      a.data(h),
                      a.leading(),
                      b.data(h),
                      b.leading(),
                      c.data(h),
                      c.leading(),
                      false});
    kernels::gemm_many(list.data(), heads);
    return;
  }
  const auto stack = [](const HeadMatrix& x) {
    return x.head_dim == 1 ? x.t.transpose(0, 1) : x.t;
  };
  const at::Tensor left = stack(a), right = stack(b);
  stack(c).copy_(at::matmul(form == GemmForm::kTN ? left.transpose(1, 2) : left,
                            form == GemmForm::kNT ? right.transpose(1, 2) : right));
}

struct HeadLinear : torch::autograd::Function<HeadLinear> {
  static at::Tensor forward(AutogradContext* context,
                            const at::Tensor& x,
                            const at::Tensor& weight,
                            bool transposed) {
    context->save_for_backward({x, weight});
    context->saved_data["transposed"] = transposed;
    const int64_t inputs = x.size(2), outputs = weight.size(transposed ? 1 : 2);
    at::Tensor y = at::empty({x.size(0), x.size(1), outputs}, x.options());
    products(transposed ? GemmForm::kNT : GemmForm::kNN,
             {x, 1},
             {weight, 0},
             {y, 1},
             x.size(0),
             outputs,
             inputs);
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    COHORT_CHECK(!at::GradMode::is_enabled(),
                 "head_linear has no second derivative: call backward without create_graph");
    const auto saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1];
    const bool transposed = context->saved_data["transposed"].toBool();
    const at::Tensor d_y = gradients[0].stride(2) == 1 ? gradients[0] : gradients[0].contiguous();
    const int64_t tokens = x.size(0), inputs = x.size(2), outputs = d_y.size(2);
    at::Tensor d_x, d_weight;
    if (context->needs_input_grad(0)) {
      d_x = at::empty(x.sizes(), x.options());
      products(transposed ? GemmForm::kNN : GemmForm::kNT,
               {d_y, 1},
               {weight, 0},
               {d_x, 1},
               tokens,
               inputs,
               outputs);
    }
    if (context->needs_input_grad(1)) {
      d_weight = at::empty(weight.sizes(), weight.options());
      // d_W = x^T d_y, or d_y^T x when W stands transposed.
      products(GemmForm::kTN,
               {transposed ? d_y : x, 1},
               {transposed ? x : d_y, 1},
               {d_weight, 0},
               transposed ? outputs : inputs,
               transposed ? inputs : outputs,
               tokens);
    }
    return {d_x, d_weight, at::Tensor()};
  }
};

}  // namespace

at::Tensor head_linear(const at::Tensor& x, const at::Tensor& weight, bool transposed) {
  COHORT_CHECK(x.dim() == 3 && weight.dim() == 3 && x.size(1) == weight.size(0) &&
                   x.size(2) == weight.size(transposed ? 2 : 1) && x.stride(2) == 1 &&
                   weight.stride(2) == 1 && x.scalar_type() == weight.scalar_type(),
               "head_linear: x {} and weight {}{} do not fit",
               fmt::join(x.sizes(), " x "),
               fmt::join(weight.sizes(), " x "),
               transposed ? " (transposed)" : "");
  return HeadLinear::apply(x, weight, transposed);
}

}  // namespace cohort::core
