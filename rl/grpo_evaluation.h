// How a GRPO run does on held-out problems: the same problems and seeds each time.
#pragma once
#include <nlohmann/json.hpp>
#include <vector>

#include "core/config/config.h"
#include "core/tokenizer/tokenizer.h"
#include "distributed/communicator.h"
#include "rl/evaluate.h"
#include "rl/rewards/reward.h"
#include "rl/rollout.h"
#include "rl/tasks/task.h"

namespace cohort::rl {

class HeldOutEvaluation {
 public:
  /// The first rl.eval_problems problems of the test split; none when rl.eval_every is 0. Throws
  /// InputError when there are not so many.
  HeldOutEvaluation(const core::Config& config, uint64_t seed);

  /// Adds eval_pass_at_1, eval_reward_mean and eval_problems to `line`, the same on every rank, and
  /// returns lines of samples.jsonl: the first sample of each of the first 8 problems. Collective
  /// over dp; `generate` is called once.
  std::vector<nlohmann::ordered_json> run(const core::Tokenizer& tokenizer,
                                          RewardSum& rewards,
                                          distributed::Communicator& dp,
                                          const Generate& generate,
                                          nlohmann::ordered_json& line) const;

 private:
  EvaluationOptions options_;
  std::vector<Problem> problems_;
};

}  // namespace cohort::rl
