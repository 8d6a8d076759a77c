#include "core/nn/cross_entropy.h"

#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "core/base/device_branch.h"
#include "core/nn/device/head_losses.h"
#include "core/nn/kernel_types.h"
#include "core/nn/logit_chunks.h"
#include "core/nn/product.h"
#include "kernels/cpu/cross_entropy.h"

namespace cohort::core {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// The loss and, where wanted, its gradients, over rows that all have a target.
struct Evaluation {
  double loss = 0;
  at::Tensor d_x;     ///< As x.
  at::Tensor d_head;  ///< In the dtype of sums.
};

Evaluation evaluate(const at::Tensor& x,
                    const at::Tensor& head,
                    const at::Tensor& target,
                    bool want_x,
                    bool want_head) {
  const int64_t rows = x.size(0), classes = head.size(0);
  const int64_t chunk = std::min(rows, rows_of_logits(classes));
  Evaluation e;
  if (want_x) e.d_x = at::empty_like(x);
  if (want_head)
    e.d_head = at::zeros(head.sizes(), head.options().dtype(sum_dtype(head.scalar_type())));
  auto buffer = at::empty({chunk, classes}, x.options());
  std::vector<double> losses(chunk);
  for (int64_t begin = 0; begin < rows; begin += chunk) {
    const int64_t count = std::min(chunk, rows - begin);
    const auto x_rows = x.narrow(0, begin, count);
    auto logits = buffer.narrow(0, 0, count);
    product(kernels::GemmForm::kNT, x_rows, head, logits, false);
    with_kernel_type("linear_cross_entropy_sum", logits, [&]<class T>(T) {
      kernels::cross_entropy<T>(elements<T>(logits),
                                target.const_data_ptr<int64_t>() + begin,
                                count,
                                classes,
                                want_x || want_head,
                                losses.data());
    });
    for (int64_t i = 0; i < count; ++i) e.loss += losses[i];
    if (want_x) {
      auto d_x = e.d_x.narrow(0, begin, count);
      product(kernels::GemmForm::kNN, logits, head, d_x, false);
    }
    if (want_head) product(kernels::GemmForm::kTN, logits, x_rows, e.d_head, true);
  }
  return e;
}

/// The rows that have a target; the targets are on the CPU.
at::Tensor scored_rows(const at::Tensor& target) {
  const int64_t* t = target.const_data_ptr<int64_t>();
  std::vector<int64_t> rows;
  for (int64_t i = 0; i < target.numel(); ++i)
    if (t[i] >= 0) rows.push_back(i);
  return at::tensor(rows, at::kLong);
}

/// The device branch of the Function below: nothing waits for the device.
at::Tensor forward_on_device(AutogradContext* ctx,
                             const at::Tensor& x,
                             const at::Tensor& head,
                             const at::Tensor& target,
                             bool want_x,
                             bool want_head) {
  const auto there = [&](const at::Tensor& t) { return t.to(x.device(), /*non_blocking=*/true); };
  const auto rows = scored_rows(target);
  const bool all = rows.size(0) == target.size(0);
  const auto scored = there(rows);
  auto e = device::cross_entropy(all ? x : x.index_select(0, scored),
                                 head,
                                 there(all ? target : target.index_select(0, rows)),
                                 want_x,
                                 want_head);
  if (!all && want_x) e.d_x = at::zeros_like(x).index_copy_(0, scored, e.d_x);
  ctx->save_for_backward({e.d_x, e.d_head});
  return e.loss.to(sum_dtype(x.scalar_type()));
}

struct LinearCrossEntropy : torch::autograd::Function<LinearCrossEntropy> {
  static at::Tensor forward(AutogradContext* ctx,
                            const at::Tensor& x,
                            const at::Tensor& head,
                            const at::Tensor& target,
                            bool want_x,
                            bool want_head) {
    ctx->saved_data["dtype"] = static_cast<int64_t>(head.scalar_type());
    if (takes_device_branch(x)) return forward_on_device(ctx, x, head, target, want_x, want_head);
    // Only rows with a target are multiplied.
    const auto scored = target.ge(0).nonzero().squeeze(1);
    const bool all = scored.size(0) == target.size(0);
    auto e = all ? evaluate(x, head, target, want_x, want_head)
                 : evaluate(x.index_select(0, scored),
                            head,
                            target.index_select(0, scored),
                            want_x,
                            want_head);
    if (!all && want_x) e.d_x = at::zeros_like(x).index_copy_(0, scored, e.d_x);
    ctx->save_for_backward({e.d_x, e.d_head});
    return at::scalar_tensor(e.loss, x.options().dtype(sum_dtype(x.scalar_type())));
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const auto saved = ctx->get_saved_variables();
    const auto dtype = static_cast<at::ScalarType>(ctx->saved_data["dtype"].toInt());
    at::Tensor d_x, d_head;
    if (takes_device_branch(gradients[0])) {
      if (saved[0].defined()) d_x = saved[0].mul(gradients[0]);
      if (saved[1].defined()) d_head = saved[1].mul(gradients[0]).to(dtype);
      return {d_x, d_head, at::Tensor(), at::Tensor(), at::Tensor()};
    }
    const double scale = gradients[0].item<double>();
    if (saved[0].defined()) d_x = scale == 1 ? saved[0] : saved[0].mul(scale);
    if (saved[1].defined()) d_head = (scale == 1 ? saved[1] : saved[1].mul(scale)).to(dtype);
    return {d_x, d_head, at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor linear_cross_entropy_sum(const at::Tensor& x,
                                    const at::Tensor& head,
                                    const at::Tensor& target) {
  check_head_operands("linear_cross_entropy_sum", x, head, target);
  const auto targets = target.contiguous();
  const int64_t* t = targets.const_data_ptr<int64_t>();
  const auto beyond = std::find_if(
      t, t + targets.numel(), [&](int64_t id) { return id >= head.size(0) || id < -1; });
  COHORT_CHECK(beyond == t + targets.numel(),
               "linear_cross_entropy_sum: target {} at row {} is not below {} nor -1",
               *beyond,
               beyond - t,
               head.size(0));
  const bool recording = at::GradMode::is_enabled();
  return LinearCrossEntropy::apply(x.contiguous(),
                                   head.contiguous(),
                                   targets,
                                   recording && x.requires_grad(),
                                   recording && head.requires_grad());
}

}  // namespace cohort::core
