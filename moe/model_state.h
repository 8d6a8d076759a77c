// A model's weights under their global names: from any source into this rank's parameters, and from
// this rank to a checkpoint.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "distributed/checkpoint.h"
#include "distributed/mesh.h"
#include "distributed/sharded_optimizer.h"
#include "moe/transformer.h"

namespace cohort::moe {

/// Gives the whole tensor of a name in that shape, in any dtype; throws InputError when it has
/// none.
using TensorSource =
    std::function<at::Tensor(const std::string& name, const std::vector<int64_t>& shape)>;

/// Fills every parameter and buffer that this rank holds. Before a ShardedOptimizer is made, or
/// followed by reading its masters.
void load_weights(Transformer& model, const TensorSource& source);

/// Every weight and buffer of `from`, a model of the same config on the same mesh, into `to`.
void copy_weights(const Transformer& from, Transformer& to);

/// This rank's share of a model's weights and buffers under `prefix` + name, as whole tensors, each
/// given by one rank.
std::vector<distributed::CheckpointSlice> weight_slices(const Transformer& model,
                                                        const distributed::Mesh& mesh,
                                                        const std::string& prefix = "");

/// This rank's share of a checkpoint: each dense tensor is given by one rank of dp, each expert's
/// by one of edp, so that all ranks write about as much. Masters are left out where they equal the
/// weights (fp32, fp64).
distributed::CheckpointContent checkpoint_content(const Transformer& model,
                                                  distributed::ShardedOptimizer& optimizer,
                                                  const distributed::Mesh& mesh);

/// The weights and buffers that stand in a checkpoint under `prefix` + name. InputError as below.
void load_weights(const distributed::CheckpointReader& reader,
                  Transformer& model,
                  const std::string& prefix = "");

/// Weights, biases, masters and moments from a checkpoint of any mesh. Throws InputError naming
/// what is missing or misshapen. Collective. Without `moments` these stay as they are, and the
/// masters come from the weights.
void load_checkpoint(const distributed::CheckpointReader& reader,
                     Transformer& model,
                     distributed::ShardedOptimizer& optimizer,
                     bool moments = true);

}  // namespace cohort::moe
