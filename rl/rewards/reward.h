// Rewards are rules: functions of a completion and of the problem it answers.
#pragma once
#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace cohort::rl {

/// One sampled answer.
struct Completion {
  std::string prompt;
  std::string text;
  int64_t tokens = 0;      // generated tokens, the end token included
  bool truncated = false;  // stopped by the length limit
  nlohmann::json problem;  // Problem::data of the task it answers
};

/// A rule. One object serves one thread at a time; two objects never share state.
class Reward {
 public:
  virtual ~Reward() = default;
  virtual std::string name() const = 0;

  /// One finite value a completion, in order. A completion never makes it throw: what cannot be
  /// scored gets 0 and is counted. A problem without the field that the rule needs is an
  /// InputError.
  virtual std::vector<double> score(std::span<const Completion> batch) = 0;

  /// Samples so far that got 0 because the rule itself failed (a command that crashed or hung).
  virtual int64_t failures() const { return 0; }
  /// Why the first of them did, for a warning; empty while there is none.
  virtual std::string first_failure() const { return ""; }
};

/// One entry of `rl.rewards`.
struct RewardConfig {
  std::string name;  // format, math_answer, countdown, exact, length, language, code_tests, command
  double weight = 1.0;  // of its value in the sum
  /// The rule's own options (builtin.h); `label` renames it in the logs, for using one rule twice.
  nlohmann::json options = nlohmann::json::object();
};

/// Throws InputError for an unknown name, an unknown option or a wrong value.
std::unique_ptr<Reward> make_reward(const RewardConfig& config);

/// What a batch got: the weighted sum and each component before its weight.
struct Scores {
  std::vector<double> total;                    // [completion]
  std::vector<std::vector<double>> components;  // [reward][completion], as in RewardSum::labels()
};

/// The weighted sum of rewards.
class RewardSum {
 public:
  /// Throws InputError for no reward at all, a label used twice, or a weight that is not finite.
  explicit RewardSum(std::span<const RewardConfig> configs);

  Scores score(std::span<const Completion> batch);

  /// The name under which each component is logged (`reward/<label>`).
  const std::vector<std::string>& labels() const { return labels_; }
  /// Failed samples of all components so far.
  int64_t failures() const;
  /// Why the first of them failed; empty while there is none.
  std::string first_failure() const;
  /// True once: failures are warned of one time in a run.
  bool take_warning() { return std::exchange(may_warn_, false); }

 private:
  std::vector<std::unique_ptr<Reward>> rewards_;
  std::vector<std::string> labels_;
  std::vector<double> weights_;
  bool may_warn_ = true;
};

}  // namespace cohort::rl
