// The task and the rewards that a config names.
#pragma once
#include <vector>

#include "core/config/config.h"
#include "rl/rewards/reward.h"
#include "rl/tasks/task.h"

namespace cohort::rl {

/// `prompt` and `seed` among the options are the task's template and seed; without the latter it is
/// `default_seed`. InputError for no task, or where they are not a text and a whole number.
TaskConfig task_config(const core::NamedOptions& task, uint64_t default_seed);

std::vector<RewardConfig> reward_configs(const std::vector<core::NamedOptions>& rewards);

}  // namespace cohort::rl
