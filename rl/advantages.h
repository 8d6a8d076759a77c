// What a completion is worth beside the others of its group (arXiv:2402.03300, section 4.1).
#pragma once
#include <ATen/ATen.h>

#include <string>

#include "distributed/communicator.h"

namespace cohort::rl {

enum class AdvantageScale { kGroup, kBatch, kNone };

/// "group", "batch", "none"; throws InputError for another.
AdvantageScale advantage_scale(const std::string& name);

/// rewards fp64 [N], the samples of a group next to each other, N a multiple of `group_size` >= 2.
/// A_i = (r_i - mean of its group) / (std + 1e-4), with n - 1 under the root: of its group, of the
/// rewards of all ranks of `dp` (kBatch), or without the division (kNone). -> fp64 [N]. Exactly 0
/// throughout a group whose rewards are all equal. Collective over dp for kBatch, where ranks may
/// hold different N, also none, and the bits do not depend on which rank holds what. Throws Error
/// for other shapes and for a reward that is not finite.
at::Tensor advantages(const at::Tensor& rewards,
                      int64_t group_size,
                      AdvantageScale scale,
                      distributed::Communicator& dp);

}  // namespace cohort::rl
