// Router, experts and shared experts of one layer (DeepSeekMoE, arXiv:2401.06066).
#pragma once
#include <ATen/ATen.h>

#include <memory>
#include <optional>
#include <string>

#include "core/config/config.h"
#include "distributed/communicator.h"
#include "moe/dispatch.h"
#include "moe/mlp.h"

namespace cohort::moe {

/// What a layer decided for one micro-batch. Empty before the first pass; a recomputation finds the
/// choice of the first and neither routes anew nor counts loads again.
struct RoutingMemory {
  DispatchPlanPtr plan;
  at::Tensor expert_TK;  ///< Given without a plan: a choice made elsewhere, to be followed.
  /// With a given choice: int64 scalar, the tokens that this router would have sent to other
  /// experts. Undefined without.
  at::Tensor mismatched;
};

class MoeLayer {
 public:
  /// `ep` shares the layer's experts; its size divides config.n_routed_experts. Names below
  /// `prefix`
  /// ("model.layers.3.mlp."): gate.weight, gate.e_score_correction_bias, experts.*,
  /// shared_experts.*.
  MoeLayer(const core::ModelConfig& config,
           std::string prefix,
           const core::Initializer& init,
           std::shared_ptr<distributed::Communicator> ep);

  struct Output {
    at::Tensor y;              ///< [B, S, D]
    at::Tensor sequence_loss;  ///< Scalar, see Routing.
  };
  /// x [B, S, D], normalised. Collective over ep. `count_loads`: add this pass to load().
  Output forward(const at::Tensor& x, RoutingMemory& memory, bool count_loads);

  /// int64 [E]: choices of this rank's tokens since the last clear_load().
  const at::Tensor& load() const { return load_; }
  void clear_load() { load_.zero_(); }
  /// Selection bias [E], fp32 (fp64 in an fp64 model); undefined for a softmax router.
  at::Tensor& bias() { return bias_; }
  const std::string& prefix() const { return prefix_; }

  void collect(core::ParameterList& out) const;
  void collect_buffers(std::vector<core::Buffer>& out) const;

 private:
  at::Tensor count_other_choices(const at::Tensor& logits_TE,
                                 const at::Tensor& expert_TK,
                                 int64_t rows) const;

  core::ModelConfig config_;
  std::string prefix_;
  std::shared_ptr<distributed::Communicator> ep_;
  core::Parameter gate_;  ///< [E, D]
  Experts experts_;
  std::optional<Mlp> shared_;
  at::Tensor bias_, load_;
};

}  // namespace cohort::moe
