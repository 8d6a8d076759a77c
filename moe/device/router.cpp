#include "moe/device/router.h"

#include <torch/csrc/autograd/custom_function.h>

#include <limits>

#include "core/base/device_kernels.h"
#include "core/nn/kernel_types.h"

namespace cohort::moe::device {
namespace {

using core::device_kernels;
using core::device_stream;
using core::elements;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// The choice of kernels::choose_experts (kernels/cpu/router.h).
at::Tensor chosen(const at::Tensor& choice_TE, const kernels::TopKShape& top) {
  const double least = -std::numeric_limits<double>::infinity();
  at::Tensor choice = choice_TE.masked_fill(choice_TE.isnan(), least);
  // A stable sort gives ties to the lower index.
  const auto best = [](const at::Tensor& values, int64_t count) {
    return std::get<1>(values.sort(/*stable=*/true, /*dim=*/-1, /*descending=*/true))
        .narrow(-1, 0, count);
  };
  if (top.groups_kept < top.num_groups) {
    const int64_t size = top.E / top.num_groups;
    const at::Tensor grouped = choice.view({top.T, top.num_groups, size});
    const at::Tensor worth = std::get<0>(grouped.topk(std::min<int64_t>(2, size), -1)).sum(-1);
    const at::Tensor kept = at::zeros(worth.sizes(), worth.options().dtype(at::kBool))
                                .scatter_(1, best(worth, top.groups_kept), true);
    choice = grouped.masked_fill(kept.logical_not().unsqueeze(-1), least).flatten(1);
  }
  return std::get<0>(best(choice, top.K).sort(-1)).contiguous();
}

/// What the kernels take; `scores` and the gates of its choice are what they give.
kernels::DeviceRouting routing_of(const RouterShape& shape) {
  const auto& top = shape.top;
  return {top.T,
          top.E,
          top.K,
          top.num_groups,
          top.groups_kept,
          shape.scoring == kernels::Scoring::kSoftmax,
          shape.normalise,
          static_cast<float>(shape.scale)};
}

void save_routing(AutogradContext* context, const kernels::DeviceRouting& routing) {
  context->saved_data["whole"] = std::vector<int64_t>{routing.T,
                                                      routing.E,
                                                      routing.K,
                                                      routing.num_groups,
                                                      routing.groups_kept,
                                                      routing.softmax,
                                                      routing.normalise};
  context->saved_data["scale"] = static_cast<double>(routing.scale);
}

kernels::DeviceRouting saved_routing(AutogradContext* context) {
  const auto whole = context->saved_data["whole"].toIntVector();
  return {whole[0],
          whole[1],
          whole[2],
          whole[3],
          whole[4],
          whole[5] != 0,
          whole[6] != 0,
          static_cast<float>(context->saved_data["scale"].toDouble())};
}

/// Logits [T, E] fp32 -> {scores [T, E], expert [T, K], gate [T, K]} in one pass.
struct RouteByKernel : torch::autograd::Function<RouteByKernel> {
  struct Bias {
    at::Tensor value;  ///< May be undefined: a Function takes no undefined tensor by itself.
  };

  static variable_list forward(AutogradContext* context,
                               const at::Tensor& logits_TE,
                               const Bias& bias,
                               const kernels::DeviceRouting& routing) {
    const at::Tensor logits = logits_TE.contiguous();
    const at::Tensor chosen_bias = bias.value.defined() ? bias.value.contiguous() : at::Tensor();
    at::Tensor scores = at::empty_like(logits);
    at::Tensor expert = at::empty({routing.T, routing.K}, logits.options().dtype(at::kLong));
    at::Tensor gate = at::empty({routing.T, routing.K}, logits.options());
    if (routing.T > 0)
      device_kernels(logits)->route(routing,
                                    elements<float>(logits),
                                    elements<float>(chosen_bias),
                                    elements<float>(scores),
                                    elements<int64_t>(expert),
                                    elements<float>(gate),
                                    device_stream(logits));
    save_routing(context, routing);
    context->save_for_backward({scores, expert});
    context->mark_non_differentiable({expert});
    return {scores, expert, gate};
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &scores = saved[0], &expert = saved[1];
    const auto routing = saved_routing(context);
    const at::Tensor d_scores = gradients[0].defined() ? gradients[0].contiguous() : at::Tensor();
    const at::Tensor d_gate = gradients[2].defined()
                                  ? gradients[2].contiguous()
                                  : at::zeros({routing.T, routing.K}, scores.options());
    at::Tensor d_logits = at::empty_like(scores);
    if (routing.T > 0)
      device_kernels(scores)->route_backward(routing,
                                             elements<float>(scores),
                                             elements<int64_t>(expert),
                                             elements<float>(d_gate),
                                             elements<float>(d_scores),
                                             elements<float>(d_logits),
                                             device_stream(scores));
    return {d_logits, at::Tensor(), at::Tensor()};
  }
};

/// The sequence-wise balance loss (eq. 17-20) of a choice.
at::Tensor sequence_loss(const at::Tensor& scores,
                         const at::Tensor& expert,
                         const RouterShape& shape) {
  const auto& top = shape.top;
  if (shape.rows == 0 || top.T == 0) return (scores * 0).sum();
  const int64_t S = top.T / shape.rows;
  const at::Tensor ones = at::ones({1}, scores.options().requires_grad(false));
  const at::Tensor times =
      at::zeros({shape.rows, top.E}, ones.options())
          .scatter_add_(
              1, expert.view({shape.rows, S * top.K}), ones.expand({shape.rows, S * top.K}));
  const at::Tensor f =
      times * (static_cast<double>(top.E) / static_cast<double>(std::max<int64_t>(1, top.K * S)));
  const at::Tensor share = scores / scores.sum(-1, /*keepdim=*/true);
  const at::Tensor mean = share.view({shape.rows, S, top.E}).mean(1);
  return (f * mean).sum();
}

}  // namespace

Routing route(const at::Tensor& logits_TE,
              const at::Tensor& bias_E,
              const at::Tensor& given_TK,
              const RouterShape& shape) {
  const auto& top = shape.top;
  const auto routing = routing_of(shape);
  const auto* kernels = device_kernels(logits_TE);
  if (kernels && logits_TE.scalar_type() == at::kFloat && !given_TK.defined() &&
      kernels->routes(routing)) {
    const auto out = RouteByKernel::apply(logits_TE, RouteByKernel::Bias{bias_E}, routing);
    return {out[1], out[2], sequence_loss(out[0], out[1], shape)};
  }
  const at::Tensor scores =
      shape.scoring == kernels::Scoring::kSoftmax ? logits_TE.softmax(-1) : logits_TE.sigmoid();
  at::Tensor expert = given_TK;
  if (!expert.defined()) {
    const at::Tensor plain = scores.detach();
    expert = chosen(bias_E.defined() ? plain + bias_E : plain, top);
  }
  at::Tensor gate = scores.gather(1, expert);
  if (shape.normalise) gate = gate / (gate.sum(-1, /*keepdim=*/true) + 1e-20);
  gate = gate * shape.scale;
  return {expert, gate, sequence_loss(scores, expert, shape)};
}

}  // namespace cohort::moe::device
