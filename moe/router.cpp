#include "moe/router.h"

#include <torch/csrc/autograd/custom_function.h>

#include "core/base/device_branch.h"
#include "core/base/error.h"
#include "kernels/cpu/router.h"
#include "moe/device/router.h"

namespace cohort::moe {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

void save_shape(AutogradContext* context, const RouterShape& shape) {
  auto& saved = context->saved_data;
  saved["top"] = std::vector<int64_t>{shape.top.T, shape.top.E, shape.top.K, shape.rows};
  saved["softmax"] = shape.scoring == kernels::Scoring::kSoftmax;
  saved["normalise"] = shape.normalise;
  saved["scale"] = shape.scale;
}

RouterShape saved_shape(AutogradContext* context) {
  auto& saved = context->saved_data;
  const auto top = saved["top"].toIntVector();
  return {{top[0], top[1], top[2]},
          saved["softmax"].toBool() ? kernels::Scoring::kSoftmax : kernels::Scoring::kSigmoid,
          top[3],
          saved["normalise"].toBool(),
          saved["scale"].toDouble()};
}

struct FixedInputs {
  at::Tensor bias_E, chosen_TK;  ///< Either may be undefined.
};

struct RouterFunction : torch::autograd::Function<RouterFunction> {
  /// Gives {expert_TK, gate_TK, sequence_loss}. What has no gradient comes in `fixed`: a Function
  /// takes no undefined tensor.
  static variable_list forward(AutogradContext* context,
                               const at::Tensor& logits_TE,
                               const FixedInputs& fixed,
                               const RouterShape& shape) {
    const auto& [bias_E, chosen_TK] = fixed;
    const auto& top = shape.top;
    const at::Tensor logits = logits_TE.contiguous();
    at::Tensor scores = at::empty_like(logits);
    at::Tensor expert = chosen_TK.defined() ? chosen_TK : at::empty({top.T, top.K}, at::kLong);
    at::Tensor gate = at::empty({top.T, top.K}, logits.options());
    at::Tensor loss = at::empty({shape.rows}, logits.options());
    at::Tensor share = at::empty({shape.rows, top.E}, logits.options());
    AT_DISPATCH_FLOATING_TYPES(logits.scalar_type(), "route", [&] {
      kernels::router_scores(logits.const_data_ptr<scalar_t>(),
                             top.T,
                             top.E,
                             shape.scoring,
                             scores.data_ptr<scalar_t>());
      const scalar_t* s = scores.const_data_ptr<scalar_t>();
      if (!chosen_TK.defined())
        kernels::choose_experts(top,
                                s,
                                bias_E.defined() ? bias_E.const_data_ptr<scalar_t>() : nullptr,
                                expert.data_ptr<int64_t>());
      const int64_t* chosen = expert.const_data_ptr<int64_t>();
      kernels::gate_values(top,
                           s,
                           chosen,
                           shape.normalise,
                           static_cast<scalar_t>(shape.scale),
                           gate.data_ptr<scalar_t>());
      kernels::sequence_loss(shape.rows,
                             shape.rows ? top.T / shape.rows : 0,
                             top,
                             s,
                             chosen,
                             loss.data_ptr<scalar_t>(),
                             share.data_ptr<scalar_t>());
    });
    context->save_for_backward({scores, expert, share});
    save_shape(context, shape);
    context->mark_non_differentiable({expert});
    return {expert, gate, loss.sum()};
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &scores = saved[0], &expert = saved[1], &share = saved[2];
    const RouterShape shape = saved_shape(context);
    const at::Tensor d_gate = gradients[1].defined() ? gradients[1].contiguous()
                                                     : at::zeros_like(expert, scores.options());
    const double d_loss = gradients[2].defined() ? gradients[2].item<double>() : 0.0;
    at::Tensor d_logits = at::empty_like(scores);
    AT_DISPATCH_FLOATING_TYPES(scores.scalar_type(), "route_backward", [&] {
      kernels::gate_values_backward(shape.top,
                                    scores.const_data_ptr<scalar_t>(),
                                    expert.const_data_ptr<int64_t>(),
                                    d_gate.const_data_ptr<scalar_t>(),
                                    shape.normalise,
                                    static_cast<scalar_t>(shape.scale),
                                    shape.scoring,
                                    d_logits.data_ptr<scalar_t>());
      if (d_loss != 0)
        kernels::sequence_loss_backward(shape.rows,
                                        shape.top.T / shape.rows,
                                        shape.top,
                                        scores.const_data_ptr<scalar_t>(),
                                        share.const_data_ptr<scalar_t>(),
                                        static_cast<scalar_t>(d_loss),
                                        shape.scoring,
                                        d_logits.data_ptr<scalar_t>());
    });
    return {d_logits, at::Tensor(), at::Tensor()};
  }
};

}  // namespace

Routing route(const at::Tensor& logits_TE,
              const at::Tensor& bias_E,
              int64_t rows,
              const core::ModelConfig& config,
              const at::Tensor& expert_TK) {
  const int64_t T = logits_TE.size(0);
  COHORT_CHECK(rows > 0 ? T % rows == 0 : T == 0, "{} tokens are not {} equal rows", T, rows);
  RouterShape shape{
      {T, config.n_routed_experts, config.num_experts_per_tok, config.n_group, config.topk_group},
      config.scoring_func == "softmax" ? kernels::Scoring::kSoftmax : kernels::Scoring::kSigmoid,
      rows,
      config.norm_topk_prob,
      config.routed_scaling_factor};
  if (core::takes_device_branch(logits_TE))
    return device::route(logits_TE, bias_E, expert_TK, shape);
  auto out = RouterFunction::apply(logits_TE, FixedInputs{bias_E, expert_TK}, shape);
  return {out[0], out[1], out[2]};
}

}  // namespace cohort::moe
