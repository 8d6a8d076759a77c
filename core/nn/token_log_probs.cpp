#include "core/nn/token_log_probs.h"

#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>

#include "core/base/device_branch.h"
#include "core/nn/device/head_losses.h"
#include "core/nn/kernel_types.h"
#include "core/nn/linear.h"
#include "core/nn/logit_chunks.h"
#include "core/nn/product.h"
#include "kernels/cpu/token_log_probs.h"

namespace cohort::core {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Rows {
  at::Tensor x, head, target;
  double inverse_temperature;
};

/// Takes the logits of all rows chunk by chunk through the kernel, which fills `log_prob` and
/// `entropy` (fp64 [rows]), and turns each chunk into its gradient where `coefficient` (fp64
/// [rows]) is defined; then calls each(begin, count, logits).
template <class Each>
void each_chunk(const Rows& in,
                const at::Tensor& coefficient,
                at::Tensor& log_prob,
                at::Tensor& entropy,
                const Each& each) {
  const int64_t rows = in.x.size(0), classes = in.head.size(0);
  const int64_t chunk = std::min(rows, rows_of_logits(classes));
  const auto buffer = at::empty({chunk, classes}, in.x.options());
  for (int64_t begin = 0; begin < rows; begin += chunk) {
    const int64_t count = std::min(chunk, rows - begin);
    auto logits = buffer.narrow(0, 0, count);
    product(kernels::GemmForm::kNT, in.x.narrow(0, begin, count), in.head, logits, false);
    with_kernel_type("token_log_probs", logits, [&]<class T>(T) {
      kernels::token_log_probs<T>(
          elements<T>(logits),
          in.target.const_data_ptr<int64_t>() + begin,
          count,
          classes,
          in.inverse_temperature,
          coefficient.defined() ? coefficient.const_data_ptr<double>() + begin : nullptr,
          log_prob.data_ptr<double>() + begin,
          entropy.data_ptr<double>() + begin);
    });
    each(begin, count, logits);
  }
}

/// d x and d head of sum_i coefficient_i log_prob_i, where wanted.
struct Gradients {
  at::Tensor d_x, d_head;
};

Gradients gradients(const Rows& in, const at::Tensor& coefficient, bool want_x, bool want_head) {
  Gradients g;
  if (want_x) g.d_x = at::empty_like(in.x);
  if (want_head)
    g.d_head =
        at::zeros(in.head.sizes(), in.head.options().dtype(sum_dtype(in.head.scalar_type())));
  auto log_prob = at::empty_like(coefficient), entropy = at::empty_like(coefficient);
  each_chunk(in, coefficient, log_prob, entropy, [&](int64_t begin, int64_t count, auto& logits) {
    if (want_x) {
      auto d_x = g.d_x.narrow(0, begin, count);
      product(kernels::GemmForm::kNN, logits, in.head, d_x, false);
    }
    if (want_head)
      product(kernels::GemmForm::kTN, logits, in.x.narrow(0, begin, count), g.d_head, true);
  });
  return g;
}

struct TokenLogProbsFunction : torch::autograd::Function<TokenLogProbsFunction> {
  static variable_list forward(AutogradContext* ctx,
                               const at::Tensor& x,
                               const at::Tensor& head,
                               const at::Tensor& target,
                               double inverse_temperature) {
    const auto in_double = x.options().dtype(at::kDouble);
    auto log_prob = at::empty({x.size(0)}, in_double), entropy = at::empty_like(log_prob);
    if (takes_device_branch(x)) {
      const auto there = target.to(x.device(), /*non_blocking=*/true);
      device::token_log_probs({x, head, there, inverse_temperature}, log_prob, entropy);
      ctx->save_for_backward({x, head, there});
    } else {
      each_chunk({x, head, target, inverse_temperature},
                 at::Tensor(),
                 log_prob,
                 entropy,
                 [](int64_t, int64_t, const at::Tensor&) {});
      ctx->save_for_backward({x, head, target});
    }
    ctx->saved_data["inverse_temperature"] = inverse_temperature;
    const auto dtype = sum_dtype(x.scalar_type());
    log_prob = log_prob.to(dtype);
    entropy = entropy.to(dtype);
    ctx->mark_non_differentiable({entropy});
    return {log_prob, entropy};
  }

  static variable_list backward(AutogradContext* ctx, variable_list d_outputs) {
    COHORT_CHECK(!at::GradMode::is_enabled(),
                 "token_log_probs has no second derivative: call backward without create_graph");
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &head = saved[1], &target = saved[2];
    const double inverse_temperature = ctx->saved_data["inverse_temperature"].toDouble();
    const bool want_x = ctx->needs_input_grad(0), want_head = ctx->needs_input_grad(1);
    const auto coefficient = d_outputs[0].to(at::kDouble).contiguous();
    if (takes_device_branch(x)) {
      // All rows: which have no gradient is not known here without waiting for the device.
      at::Tensor d_x, d_head;
      device::token_log_probs_backward(
          {x, head, target, inverse_temperature}, coefficient, want_x, want_head, d_x, d_head);
      if (want_head) d_head = d_head.to(head.scalar_type());
      return {d_x, d_head, at::Tensor(), at::Tensor()};
    }
    // Only rows with a gradient are multiplied: tokens that are masked or clipped and groups
    // without variance have none.
    const auto kept = coefficient.ne(0).nonzero().squeeze(1);
    Gradients g;
    if (kept.size(0) == x.size(0)) {
      g = gradients({x, head, target, inverse_temperature}, coefficient, want_x, want_head);
    } else {
      g = gradients(
          {x.index_select(0, kept), head, target.index_select(0, kept), inverse_temperature},
          coefficient.index_select(0, kept),
          want_x,
          want_head);
      if (want_x) g.d_x = at::zeros_like(x).index_copy_(0, kept, g.d_x);
    }
    if (want_head) g.d_head = g.d_head.to(head.scalar_type());
    return {g.d_x, g.d_head, at::Tensor(), at::Tensor()};
  }
};

void check(const at::Tensor& x,
           const at::Tensor& head,
           const at::Tensor& target,
           double temperature) {
  check_head_operands("token_log_probs", x, head, target);
  COHORT_CHECK(head.size(0) > 0, "token_log_probs: the head has no row");
  COHORT_CHECK(temperature > 0 && std::isfinite(1 / temperature) && std::isfinite(temperature),
               "token_log_probs: the temperature must be positive, not {}",
               temperature);
  const auto targets = target.contiguous();
  const int64_t* t = targets.const_data_ptr<int64_t>();
  const auto beyond = std::find_if(
      t, t + targets.numel(), [&](int64_t id) { return id < 0 || id >= head.size(0); });
  COHORT_CHECK(beyond == t + targets.numel(),
               "token_log_probs: target {} at row {} is not in 0 .. {}",
               *beyond,
               beyond - t,
               head.size(0) - 1);
}

}  // namespace

TokenLogProbs token_log_probs(const at::Tensor& x,
                              const at::Tensor& head,
                              const at::Tensor& target,
                              double temperature) {
  check(x, head, target, temperature);
  const auto out = TokenLogProbsFunction::apply(
      x.contiguous(), head.contiguous(), target.contiguous(), 1 / temperature);
  return {out[0], out[1]};
}

namespace {

/// The device branch of score_tokens: waits for the device once, at the end.
TokenScores score_on_device(const at::Tensor& x, const at::Tensor& head, const at::Tensor& target) {
  const int64_t rows = x.size(0), chunk = rows_of_logits(head.size(0));
  const at::Tensor there = target.to(x.device(), /*non_blocking=*/true);
  const at::Tensor both = at::empty({2, rows}, x.options().dtype(at::kDouble));
  for (int64_t begin = 0; begin < rows; begin += chunk) {
    const int64_t count = std::min(chunk, rows - begin);
    const at::Tensor logits = core::linear(x.narrow(0, begin, count), head);
    const at::Tensor wanted = there.narrow(0, begin, count);
    const at::Tensor log_p = logits.log_softmax(1, sum_dtype(x.scalar_type()));
    both[0].narrow(0, begin, count).copy_(log_p.gather(1, wanted.unsqueeze(1)).squeeze(1));
    both[1].narrow(0, begin, count).copy_(logits.argmax(1).eq(wanted));
  }
  const at::Tensor on_host = to_host(both);
  return {on_host[0], on_host[1].to(at::kBool)};
}

}  // namespace

TokenScores score_tokens(const at::Tensor& x, const at::Tensor& head, const at::Tensor& target) {
  at::NoGradGuard no_grad;
  check(x, head, target, 1.0);
  if (takes_device_branch(x)) return score_on_device(x, head, target);
  const int64_t rows = x.size(0), classes = head.size(0);
  const int64_t chunk = rows_of_logits(classes);
  const auto targets = target.contiguous();
  TokenScores out{at::empty({rows}, at::kDouble), at::empty({rows}, at::kBool)};
  auto entropy = at::empty({rows}, at::kDouble);
  for (int64_t begin = 0; begin < rows; begin += chunk) {
    const int64_t count = std::min(chunk, rows - begin);
    const at::Tensor logits = core::linear(x.narrow(0, begin, count), head);
    out.likeliest.narrow(0, begin, count)
        .copy_(logits.argmax(1).eq(targets.narrow(0, begin, count)));
    with_kernel_type("score_tokens", logits, [&]<class T>(T) {
      kernels::token_log_probs<T>(elements<T>(logits),
                                  targets.const_data_ptr<int64_t>() + begin,
                                  count,
                                  classes,
                                  1.0,
                                  nullptr,
                                  out.log_prob.data_ptr<double>() + begin,
                                  entropy.data_ptr<double>() + begin);
    });
  }
  return out;
}

}  // namespace cohort::core
