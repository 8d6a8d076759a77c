// Short ways to write completions and to score one.
#pragma once
#include <string>
#include <vector>

#include "rl/rewards/reward.h"

namespace cohort::tests {

inline rl::Completion completion(std::string text, nlohmann::json problem = nullptr) {
  rl::Completion completion;
  completion.text = std::move(text);
  completion.problem = std::move(problem);
  return completion;
}

inline std::unique_ptr<rl::Reward> reward(const std::string& name,
                                          nlohmann::json options = nlohmann::json::object()) {
  return rl::make_reward({name, 1.0, std::move(options)});
}

inline double score(rl::Reward& reward, const rl::Completion& completion) {
  return reward.score({&completion, 1}).at(0);
}

}  // namespace cohort::tests
