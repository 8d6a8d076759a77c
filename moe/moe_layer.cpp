#include "moe/moe_layer.h"

#include "core/nn/linear.h"
#include "moe/router.h"

namespace cohort::moe {

MoeLayer::MoeLayer(const core::ModelConfig& config,
                   std::string prefix,
                   const core::Initializer& init,
                   std::shared_ptr<distributed::Communicator> ep)
    : config_(config),
      prefix_(std::move(prefix)),
      ep_(std::move(ep)),
      gate_(core::named_parameter(
          prefix_ + "gate.weight",
          init.normal(prefix_ + "gate.weight", {config.n_routed_experts, config.hidden_size}))),
      experts_(config.n_routed_experts / ep_->size() * ep_->rank(),
               config.n_routed_experts / ep_->size(),
               config.hidden_size,
               config.moe_intermediate_size,
               prefix_,
               init),
      load_(at::zeros({config.n_routed_experts},
                      at::TensorOptions().dtype(at::kLong).device(init.device))) {
  if (config.n_shared_experts > 0)
    shared_.emplace(config.hidden_size,
                    config.moe_intermediate_size * config.n_shared_experts,
                    prefix_ + "shared_experts.",
                    init);
  if (config.scoring_func == "sigmoid")
    bias_ = at::zeros({config.n_routed_experts},
                      at::TensorOptions()
                          .dtype(init.dtype == at::kDouble ? at::kDouble : at::kFloat)
                          .device(init.device));
}

MoeLayer::Output MoeLayer::forward(const at::Tensor& x, RoutingMemory& memory, bool count_loads) {
  const at::Tensor x_TD = x.reshape({-1, x.size(-1)});
  // The router works in fp32 at least: small differences of affinity decide.
  const auto precise = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor logits_TE = core::linear(x_TD.to(precise), gate_.value.to(precise));
  const Routing routing = route(logits_TE, bias_, x.size(0), config_, memory.expert_TK);
  if (!memory.plan) {
    if (memory.expert_TK.defined())
      memory.mismatched = count_other_choices(logits_TE, memory.expert_TK, x.size(0));
    memory.expert_TK = routing.expert_TK;
    memory.plan = plan_dispatch(routing.expert_TK, config_.n_routed_experts, ep_);
    if (count_loads) load_.add_(memory.plan->load_E);
  }
  const at::Tensor y_RD = experts_.forward(dispatch(x_TD, memory.plan), memory.plan->expert_rows);
  at::Tensor y_TD = combine(y_RD, routing.gate_TK, memory.plan);
  if (shared_) y_TD = y_TD + shared_->forward(x_TD);
  return {y_TD.view(x.sizes()), routing.sequence_loss};
}

at::Tensor MoeLayer::count_other_choices(const at::Tensor& logits_TE,
                                         const at::Tensor& expert_TK,
                                         int64_t rows) const {
  at::NoGradGuard no_grad;
  const Routing own = route(logits_TE, bias_, rows, config_);
  return own.expert_TK.ne(expert_TK).any(1).sum();
}

void MoeLayer::collect(core::ParameterList& out) const {
  out.push_back(gate_);
  experts_.collect(out);
  if (shared_) shared_->collect(out);
}

void MoeLayer::collect_buffers(std::vector<core::Buffer>& out) const {
  if (bias_.defined()) out.push_back({prefix_ + "gate.e_score_correction_bias", bias_});
}

}  // namespace cohort::moe
