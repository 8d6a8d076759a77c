// How many problems a model solves: n samples of each, scored by the rewards.
//
// A sample's seed is a function of (seed, problem id, sample), so results know neither the mesh nor
// the order of the problems. Problems are dealt to the ranks of dp; every rank returns the same
// figures.
#pragma once
#include <map>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "core/config/config.h"
#include "core/tokenizer/tokenizer.h"
#include "distributed/mesh.h"
#include "moe/transformer.h"
#include "rl/generator.h"
#include "rl/pass_statistics.h"
#include "rl/rewards/reward.h"
#include "rl/tasks/task.h"

namespace cohort::rl {

/// One sample of one problem.
struct EvaluatedCompletion {
  int64_t problem_idx = 0, sample_idx = 0;
  std::string text;    ///< Without the end token.
  std::string answer;  ///< What maj@k compares.
  int64_t tokens = 0;  ///< The end token included.
  bool truncated = false;
  bool correct = false;
  double reward = 0;               ///< The weighted sum.
  std::vector<double> components;  ///< [reward], before its weight.
};

struct CategoryResult {
  int64_t problems = 0;
  double pass_at_1 = 0;
};

struct Evaluation {
  int64_t problems = 0, samples = 0;
  double pass_at_1 = 0;  ///< Mean over problems of the share of samples that are right.
  Interval pass_at_1_ci95{0, 1};
  std::vector<std::pair<int64_t, double>> pass_at_k;  ///< k = 1, 2, 4, ... and `samples`.
  double maj_at_k = 0;                                ///< Of all samples; see majority().
  std::map<std::string, CategoryResult> categories;
  double reward_mean = 0;                               ///< Of the weighted sum.
  std::vector<std::pair<std::string, double>> rewards;  ///< Label and mean of each component.
  double tokens_mean = 0, truncated_fraction = 0;
  int64_t reward_failures = 0;                   ///< Samples that a reward could not score.
  std::vector<EvaluatedCompletion> completions;  ///< Of this rank's problems, in order.
};

struct EvaluationOptions {
  int64_t samples = 1;
  uint64_t seed = 1;
  int64_t bos_token_id = -1;  ///< -1: prompts have no begin token.
  /// Label of the reward that decides: a completion is right when its value is at least 1. Empty:
  /// the first.
  std::string correct;
  std::string answer_tag = "answer";
};

/// Collective over dp (and over what `generate` is collective over; it is called once on every
/// rank). Throws InputError for no problem, or a `correct` that is none of the rewards.
Evaluation evaluate(const EvaluationOptions& options,
                    std::span<const Problem> problems,
                    const core::Tokenizer& tokenizer,
                    RewardSum& rewards,
                    distributed::Communicator& dp,
                    const Generate& generate);

/// The same with the rewards, the sampling and the cache of a run; the first reward decides.
Evaluation evaluate(moe::Transformer& model,
                    const core::Tokenizer& tokenizer,
                    const distributed::Mesh& mesh,
                    const core::RlConfig& rl,
                    std::span<const Problem> problems,
                    int64_t samples,
                    uint64_t seed);

/// problems, samples, pass_at_1, pass_at_1_ci95 [low, high], avg_at_k (which pass_at_1 is, under
/// the name that papers give it), pass_at_k {"1": ...}, maj_at_k, categories, reward_mean, rewards,
/// completion_tokens_mean, truncated_fraction, reward_failures.
nlohmann::ordered_json evaluation_json(const Evaluation& evaluation);

/// A completion with its problem and scores, for a JSONL file.
nlohmann::ordered_json completion_json(const EvaluatedCompletion& completion,
                                       const Problem& problem,
                                       const std::vector<std::string>& reward_labels);

}  // namespace cohort::rl
