// Which of a problem's completions are kept to learn from: rejection sampling.
#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/config/config.h"

namespace cohort::rl {

/// One completion of a problem, scored.
struct SampledCompletion {
  std::string text;
  int64_t tokens = 0;
  bool truncated = false;
  double reward = 0;
};

/// Each completion is kept, or is counted once: in the order of these members.
struct Choice {
  std::vector<int64_t> kept;  ///< Their places, ascending.
  int64_t below = 0;          ///< Reward under keep_at_least.
  int64_t truncated = 0;      ///< Cut by max_new_tokens, where these are not wanted.
  int64_t empty = 0;          ///< Nothing to learn from.
  int64_t duplicates = 0;     ///< As one that comes before, white space aside.
  int64_t surplus = 0;        ///< Good, but more than keep_per_prompt.
};

/// Candidates are ordered by preference: `best`, by reward and then by place; `random`, by a hash
/// of (seed, place); without keep_per_prompt, by place. Of equal ones the first stays. A function
/// of its arguments alone.
Choice choose(std::span<const SampledCompletion> completions,
              const core::SampleConfig& config,
              uint64_t seed);

/// Runs of white space (as Python's str.split has it) become one space, at the ends none.
std::string normalised_space(std::string_view text);

}  // namespace cohort::rl
