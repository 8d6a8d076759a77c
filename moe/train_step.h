// One training step: backward over this rank's micro-batches, one update, one move of the router
// biases. Pretraining, fine-tuning and GRPO pass it different losses.
#pragma once
#include <ATen/ATen.h>

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "core/data/batch.h"
#include "distributed/mesh.h"
#include "distributed/sharded_optimizer.h"
#include "moe/transformer.h"

namespace cohort::moe {

/// A micro-batch's share of the step's loss. Shares are added over micro-batches and ranks, so a
/// mean must be divided by the count of the whole step: then no term depends on the mesh or on
/// accumulation.
struct LossTerms {
  at::Tensor total;  ///< Scalar that is differentiated.
  std::vector<std::pair<std::string, at::Tensor>>
      parts;  ///< Scalars to report; the same names each time.
};
using LossFunction = std::function<LossTerms(Transformer&, const core::Batch&)>;

struct StepOptions {
  double lr = 0;
  double bias_update_speed = 0;  ///< gamma; 0 leaves the router biases alone.
};

/// The same on all ranks.
struct StepReport {
  double loss = 0;
  std::vector<std::pair<std::string, double>> parts;
  distributed::OptimizerStepReport update;
  std::vector<at::Tensor> loads;  ///< For each MoE layer int64 [E], over the whole step.
  double max_violation = 0;       ///< Mean over MoE layers.
};

/// `loss(i)` makes the forward pass of micro-batch i and gives its share. Collective over the mesh;
/// every rank gives as many micro-batches, at least one. A step whose gradient is not finite
/// changes nothing, biases included (report.update.skipped).
StepReport train_step(Transformer& model,
                      distributed::ShardedOptimizer& optimizer,
                      const distributed::Mesh& mesh,
                      int64_t micro_batches,
                      const std::function<LossTerms(int64_t)>& loss,
                      const StepOptions& options);

/// The same for micro-batches of rows.
StepReport train_step(Transformer& model,
                      distributed::ShardedOptimizer& optimizer,
                      const distributed::Mesh& mesh,
                      const std::vector<core::Batch>& micro_batches,
                      const LossFunction& loss,
                      const StepOptions& options);

}  // namespace cohort::moe
