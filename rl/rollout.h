// A step's completions: prompts of the task, a group of samples each, what the rewards say of them
// and what each is worth beside its group.
//
// What is drawn knows neither the mesh nor the batch around it: prompt i of a run is problem i of
// the training split, the seed of a sample is a function of (run.seed, step, i, sample), and groups
// that are drawn anew get further prompts in the order of the groups they replace, over all ranks.
#pragma once
#include <string>
#include <vector>

#include "core/tokenizer/tokenizer.h"
#include "distributed/communicator.h"
#include "rl/advantages.h"
#include "rl/generator.h"
#include "rl/rewards/reward.h"
#include "rl/tasks/task.h"

namespace cohort::rl {

struct Sample {
  Generated generated;
  std::string text;                ///< Without the end token.
  double reward = 0;               ///< The weighted sum.
  std::vector<double> components;  ///< [reward], before its weight.
  double advantage = 0;

  bool truncated() const { return generated.stop == StopReason::kLength; }
};

/// The samples of one prompt.
struct Group {
  int64_t prompt_idx = 0;  ///< Of the training split.
  Problem problem;
  std::vector<int32_t> prompt;
  std::vector<Sample> samples;

  /// Whether all rewards are equal: then every advantage is 0 and nothing is learned from it.
  bool degenerate() const;
};

/// Sums over everything that was drawn, groups that were replaced included: their means are those
/// of the policy on the training split. Of one rank until reduced.
struct RolloutSums {
  double completions = 0, groups = 0, degenerate = 0;
  double reward = 0, passed = 0;  ///< passed: completions whose first reward is at least 1.
  double tokens = 0, truncated = 0, entropy = 0;
  double failures = 0;             ///< Samples that a reward could not score.
  std::vector<double> components;  ///< [reward]

  void reduce(distributed::Communicator& dp);
};

struct Rollout {
  std::vector<Group> groups;  ///< This rank's, prompts_per_step / dp.
  int64_t next_prompt = 0;    ///< First prompt of the next step; the same on all ranks.
  RolloutSums sums;           ///< Of all ranks.
  double generate_seconds = 0, reward_seconds = 0;  ///< Of this rank.
};

struct RolloutOptions {
  uint64_t seed = 1;
  int64_t step = 1;
  int64_t first_prompt = 0;
  int64_t prompts = 1;  ///< Over all ranks; a multiple of dp.
  int64_t group_size = 2;
  int64_t refill_rounds = 0;
  AdvantageScale scale = AdvantageScale::kGroup;
  int64_t bos_token_id = -1;  ///< -1: prompts have no begin token.
};

/// The begin token, if there is one, and the ids of a problem's prompt.
std::vector<int32_t> prompt_ids(const core::Tokenizer& tokenizer,
                                const std::string& prompt,
                                int64_t bos_token_id);

/// What a reward is shown of a completion.
Completion completion_of(const core::Tokenizer& tokenizer,
                         const Problem& problem,
                         const Generated& generated);

/// One warning a run, of rank 0, when the rewards have failed for the first time: `failures`
/// samples of `completions`, both over all ranks. Collective over dp.
void warn_of_failures(RewardSum& rewards,
                      int64_t failures,
                      int64_t completions,
                      distributed::Communicator& dp);

/// The rollout of one step. Collective over dp; `generate` is called as often on every rank,
/// without requests where a rank has none.
Rollout roll_out(const RolloutOptions& options,
                 const Task& task,
                 const core::Tokenizer& tokenizer,
                 RewardSum& rewards,
                 distributed::Communicator& dp,
                 const Generate& generate);

}  // namespace cohort::rl
