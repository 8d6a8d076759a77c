// What `cohort sample` counts, of a problem, a part or all of them.
#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>

namespace cohort::rl {

struct SampleCounts {
  int64_t prompts = 0, samples = 0;
  int64_t kept = 0, prompts_with_kept = 0;
  /// Why the others were left out, each for the first of these that holds (rl/sample_choice.h).
  int64_t below = 0, truncated_left_out = 0, empty = 0, duplicates = 0, surplus = 0;
  int64_t passed = 0;  ///< Samples whose first reward is at least 1.
  int64_t truncated = 0, tokens = 0, kept_tokens = 0;
  int64_t reward_failures = 0;  ///< Samples that a reward could not score.
  double reward = 0;            ///< Sum of the weighted sums.
  double seconds = 0;           ///< Of generation and rewards.

  SampleCounts& operator+=(const SampleCounts& other);
};

nlohmann::ordered_json counts_json(const SampleCounts& counts);
SampleCounts read_counts(const nlohmann::ordered_json& json);

/// The same with rates and means in place of sums: pass_rate, reward_mean, tokens_per_second.
nlohmann::ordered_json counts_summary(const SampleCounts& counts);

}  // namespace cohort::rl
