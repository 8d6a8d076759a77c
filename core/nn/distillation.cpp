#include "core/nn/distillation.h"

#include <fmt/ranges.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <vector>

#include "core/nn/kernel_types.h"
#include "core/nn/logit_chunks.h"
#include "core/nn/product.h"

namespace cohort::core {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// What the graph does not see.
struct Teacher {
  at::Tensor target, top_tokens, top_log_probs;
  DistillationRule rule;
  bool want_x, want_head;
};

struct Evaluation {
  double nats = 0, divergence = 0;
  at::Tensor d_x, d_head;  ///< As x; in the dtype of sums.
};

Evaluation evaluate(const at::Tensor& x, const at::Tensor& head, const Teacher& teacher) {
  const int64_t rows = x.size(0), classes = head.size(0), k = teacher.top_tokens.size(1);
  const int64_t chunk = std::min(rows, rows_of_logits(classes));
  Evaluation e;
  if (teacher.want_x) e.d_x = at::empty_like(x);
  if (teacher.want_head)
    e.d_head = at::zeros(head.sizes(), head.options().dtype(sum_dtype(head.scalar_type())));
  const auto buffer = at::empty({chunk, classes}, x.options());
  std::vector<double> nats(chunk), divergence(chunk);
  for (int64_t begin = 0; begin < rows; begin += chunk) {
    const int64_t count = std::min(chunk, rows - begin);
    const auto x_rows = x.narrow(0, begin, count);
    auto logits = buffer.narrow(0, 0, count);
    product(kernels::GemmForm::kNT, x_rows, head, logits, false);
    with_kernel_type("linear_distillation_sum", logits, [&]<class T>(T) {
      kernels::distillation<T>(elements<T>(logits),
                               teacher.target.const_data_ptr<int64_t>() + begin,
                               teacher.top_tokens.const_data_ptr<int32_t>() + begin * k,
                               teacher.top_log_probs.const_data_ptr<double>() + begin * k,
                               count,
                               classes,
                               k,
                               teacher.rule,
                               teacher.want_x || teacher.want_head,
                               nats.data(),
                               divergence.data());
    });
    for (int64_t i = 0; i < count; ++i) {
      e.nats += nats[i];
      e.divergence += divergence[i];
    }
    if (teacher.want_x) {
      auto d_x = e.d_x.narrow(0, begin, count);
      product(kernels::GemmForm::kNN, logits, head, d_x, false);
    }
    if (teacher.want_head) product(kernels::GemmForm::kTN, logits, x_rows, e.d_head, true);
  }
  return e;
}

struct LinearDistillation : torch::autograd::Function<LinearDistillation> {
  static variable_list forward(AutogradContext* ctx,
                               const at::Tensor& x,
                               const at::Tensor& head,
                               const Teacher& teacher) {
    const auto e = evaluate(x, head, teacher);
    ctx->save_for_backward({e.d_x, e.d_head});
    ctx->saved_data["dtype"] = static_cast<int64_t>(head.scalar_type());
    const auto options = x.options().dtype(sum_dtype(x.scalar_type()));
    const double w = teacher.rule.weight;
    auto nats = at::scalar_tensor(e.nats, options);
    auto divergence = at::scalar_tensor(e.divergence, options);
    ctx->mark_non_differentiable({nats, divergence});
    return {at::scalar_tensor((1 - w) * e.nats + w * e.divergence, options), nats, divergence};
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const auto saved = ctx->get_saved_variables();
    const double scale = gradients[0].item<double>();
    const auto dtype = static_cast<at::ScalarType>(ctx->saved_data["dtype"].toInt());
    at::Tensor d_x, d_head;
    if (saved[0].defined()) d_x = scale == 1 ? saved[0] : saved[0].mul(scale);
    if (saved[1].defined()) d_head = (scale == 1 ? saved[1] : saved[1].mul(scale)).to(dtype);
    return {d_x, d_head, at::Tensor()};
  }
};

void check(const at::Tensor& x,
           const at::Tensor& head,
           const at::Tensor& target,
           const at::Tensor& top_tokens,
           const at::Tensor& top_log_probs,
           const DistillationRule& rule) {
  check_head_operands("linear_distillation_sum", x, head, target);
  const int64_t classes = head.size(0);
  COHORT_CHECK(
      top_tokens.dim() == 2 && top_tokens.size(0) == x.size(0) && top_tokens.size(1) >= 1 &&
          top_tokens.sizes() == top_log_probs.sizes() && top_tokens.scalar_type() == at::kInt,
      "linear_distillation_sum: {} tokens with likeliest ones [{}] and log-probabilities [{}]; "
      "want int32 and fp64 [T, K]",
      x.size(0),
      fmt::join(top_tokens.sizes(), " x "),
      fmt::join(top_log_probs.sizes(), " x "));
  COHORT_CHECK(rule.weight >= 0 && rule.weight <= 1 && rule.temperature > 0,
               "linear_distillation_sum: weight {} or temperature {} is out of range",
               rule.weight,
               rule.temperature);
  if (x.size(0) == 0) return;
  COHORT_CHECK(target.min().item<int64_t>() >= 0 && target.max().item<int64_t>() < classes,
               "linear_distillation_sum: a target is not in 0 .. {}",
               classes - 1);
  COHORT_CHECK(top_tokens.min().item<int32_t>() >= -1 &&
                   top_tokens.max().item<int32_t>() < classes &&
                   top_tokens.select(1, 0).min().item<int32_t>() >= 0,
               "linear_distillation_sum: a likeliest token is not in 0 .. {}, or a row has none",
               classes - 1);
}

}  // namespace

DistillationSums linear_distillation_sum(const at::Tensor& x,
                                         const at::Tensor& head,
                                         const at::Tensor& target,
                                         const at::Tensor& top_tokens,
                                         const at::Tensor& top_log_probs,
                                         const DistillationRule& rule) {
  check(x, head, target, top_tokens, top_log_probs, rule);
  const bool recording = at::GradMode::is_enabled();
  const Teacher teacher{target.contiguous(),
                        top_tokens.contiguous(),
                        top_log_probs.to(at::kDouble).contiguous(),
                        rule,
                        recording && x.requires_grad(),
                        recording && head.requires_grad()};
  const auto out = LinearDistillation::apply(x.contiguous(), head.contiguous(), teacher);
  return {out[0], out[1], out[2]};
}

}  // namespace cohort::core
