// ZeRO-1 (arXiv:1910.02054): each rank owns a slice of the fp32 masters and moments. Gradients are
// reduce-scattered bucket by bucket while backward still runs, the owner updates its slice, and
// updated weights are gathered.
#pragma once
#include "core/config/config.h"
#include "core/nn/parameter.h"
#include "distributed/mesh.h"

#include <memory>
#include <string>
#include <vector>

namespace cohort::distributed {

/// A piece of optimizer state (or of the masters) that this rank owns: elements [begin, end) of a
/// flattened named tensor.
struct OwnedSlice {
  std::string name;            ///< Of the parameter part.
  std::vector<int64_t> shape;  ///< Of the parameter part.
  int64_t begin, end;
  std::vector<std::pair<std::string, at::Tensor>>
      state;  ///< "master", "exp_avg", "exp_avg_sq", "momentum": 1-D views, end - begin long, fp32
              ///< or fp64.
};

struct OptimizerStepReport {
  double grad_norm = 0;  ///< Over every parameter of the model, each once, before clipping.
                         ///< Infinite or NaN when skipped.
  bool skipped = false;  ///< A gradient was not finite anywhere: nothing was changed.
  std::vector<std::string> non_finite;  ///< Names of such parameters (of all ranks), at most 8.
};

/// Holds views into the parameters' storage: the constructor moves every parameter and its gradient
/// into flat buckets. Parameters must hold the same values on all their replicas.
class ShardedOptimizer {
 public:
  ShardedOptimizer(const core::ParameterList& parameters,
                   const Mesh& mesh,
                   const core::OptimizerConfig& config);
  ~ShardedOptimizer();

  /// Sets every gradient to zero. Gradients are summed (not averaged) over micro-batches and ranks.
  void zero_gradients();
  /// The next backward is the step's last: from its hooks, full buckets start travelling, in the
  /// same order on all ranks.
  void expect_last_backward();
  /// Finishes the reductions, takes the global norm, clips, updates, gathers. Collective.
  OptimizerStepReport step(double lr);

  int64_t num_updates() const;  ///< Adam's t.
  void set_num_updates(int64_t t);
  /// This rank's masters and moments, as views: write through them to load, then call
  /// `masters_changed`.
  std::vector<OwnedSlice> owned_slices();
  /// Copies masters into the model's weights on all ranks. Collective.
  void masters_changed();
  /// After step()'s or before: the reduced gradient of a named part, gathered on all ranks that
  /// hold it. For tests. Collective.
  at::Tensor reduced_gradient(const std::string& name);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace cohort::distributed
