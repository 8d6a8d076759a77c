// Lines of samples.jsonl: what a person looks at first.
//
//   {"step", "prompt", "completion", "reward", "rewards": {label: value}, "advantage", "tokens",
//    "truncated", "problem_id", "answer", "split": "train" | "eval"}
#pragma once
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "rl/rollout.h"

namespace cohort::rl {

/// What a line shows of a completion.
struct ShownSample {
  const Problem& problem;
  const std::string& text;
  double reward;
  const std::vector<double>& components;
  std::optional<double> advantage;  ///< None on problems that are not trained on.
  int64_t tokens;
  bool truncated;
};

/// A line without its step. `answer` is null where the problem has none. Without an advantage the
/// split is "eval".
nlohmann::ordered_json sample_line(const ShownSample& sample,
                                   const std::vector<std::string>& labels);

/// The first `most` / 2 samples of each of the first two groups.
std::vector<nlohmann::ordered_json> sample_lines(std::span<const Group> groups,
                                                 const std::vector<std::string>& labels,
                                                 int64_t most = 8);

}  // namespace cohort::rl
