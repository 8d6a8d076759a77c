// Lines of samples.jsonl: what a person looks at first.
//
//   {"step", "prompt", "completion", "reward", "rewards": {label: value}, "advantage", "tokens",
//    "truncated", "problem_id", "answer", "split": "train" | "eval"}
#pragma once
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "rl/rollout.h"

namespace cohort::rl {

/// One line without its step. `answer` is null where the problem has none; so is the advantage on
/// problems that are not trained on.
nlohmann::ordered_json sample_line(const Problem& problem,
                                   const Sample& sample,
                                   const std::vector<std::string>& labels,
                                   Split split);

/// The first `most` / 2 samples of each of the first two groups.
std::vector<nlohmann::ordered_json> sample_lines(std::span<const Group> groups,
                                                 const std::vector<std::string>& labels,
                                                 int64_t most = 8);

}  // namespace cohort::rl
