// The updates that a rollout is worth: passes x mini-batches calls of moe::train_step with a policy
// loss. Mini-batch u holds the groups whose number over all ranks is u modulo mini_batches, so it
// holds the same groups on every mesh.
//
// A sequence from which nothing can be learned (its group was all as good, or it is masked) counts
// among the sequences and tokens but costs no pass, unless there is a KL term.
//
// The loss is the policy loss alone: the sequence-wise balance term is of pretraining, and modules
// of multi-token prediction are not run. Experts are those of sampling (RoutingReplay) in every
// pass; the reference model routes by itself.
#pragma once
#include <functional>
#include <span>
#include <vector>

#include "distributed/mesh.h"
#include "distributed/sharded_optimizer.h"
#include "moe/train_step.h"
#include "moe/transformer.h"
#include "rl/policy_batch.h"
#include "rl/policy_loss.h"

namespace cohort::rl {

struct GrpoStepOptions {
  PolicyLossOptions loss;
  double temperature = 1;  ///< Of sampling; log-probabilities are taken at it.
  int64_t group_size = 2;
  int64_t passes = 1, mini_batches = 1;
  int64_t micro_batch = 1;  ///< Completions a forward pass.
  bool recompute = false;
  moe::StepOptions step;
};

/// The same on all ranks. Means are over the updates, tokens weighing alike.
struct GrpoStepReport {
  double loss = 0;           ///< Mean over the updates.
  double kl = 0;             ///< Mean k3 a token; 0 without a reference.
  double clip_fraction = 0;  ///< Of the tokens.
  double grad_norm = 0;      ///< Mean over the updates.
  double max_violation = 0;  ///< Of the loads of all updates.
  /// Of the first update of the first pass, where the weights are those of sampling, over the
  /// sequences learned from: largest |logp - old|, and (token, layer) pairs that would have gone to
  /// other experts, of those compared.
  double logp_drift_max = 0;
  int64_t routing_mismatched = 0, routing_compared = 0;
  std::vector<distributed::OptimizerStepReport> updates;
  std::vector<at::Tensor> loads;  ///< For each MoE layer int64 [E].
};

/// `sequences`: this rank's, the samples of a group next to each other; their number is a multiple
/// of mini_batches x group_size, and the same on every rank. `reference` may be null when beta is
/// 0. Collective over the mesh.
GrpoStepReport grpo_step(moe::Transformer& model,
                         distributed::ShardedOptimizer& optimizer,
                         const distributed::Mesh& mesh,
                         moe::Transformer* reference,
                         std::span<const PolicySequence> sequences,
                         const GrpoStepOptions& options);

}  // namespace cohort::rl
