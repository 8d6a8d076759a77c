#include "rl/components.h"

#include "core/base/error.h"

namespace cohort::rl {

TaskConfig task_config(const core::NamedOptions& task, uint64_t default_seed) {
  COHORT_CHECK_INPUT(!task.name.empty(),
                     "rl.task is not given: name one, as in rl.task=countdown or rl.task={{name: "
                     "jsonl, path: problems.jsonl}}");
  TaskConfig config{task.name, default_seed, "", task.options};
  if (!config.options.is_object()) config.options = nlohmann::json::object();
  if (const auto it = config.options.find("prompt"); it != config.options.end()) {
    COHORT_CHECK_INPUT(it->is_string(), "rl.task.prompt is {}; want a text", it->dump());
    config.prompt = it->get<std::string>();
    config.options.erase(it);
  }
  if (const auto it = config.options.find("seed"); it != config.options.end()) {
    COHORT_CHECK_INPUT(it->is_number_integer() && *it >= 0,
                       "rl.task.seed is {}; want a whole number >= 0",
                       it->dump());
    config.seed = it->get<uint64_t>();
    config.options.erase(it);
  }
  return config;
}

std::vector<RewardConfig> reward_configs(const std::vector<core::NamedOptions>& rewards) {
  std::vector<RewardConfig> configs;
  for (const auto& reward : rewards)
    configs.push_back({reward.name, reward.weight, reward.options});
  return configs;
}

}  // namespace cohort::rl
