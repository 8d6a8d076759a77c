#include "rl/rewards/reward.h"

#include <algorithm>
#include <cmath>

#include "core/base/error.h"
#include "rl/rewards/builtin.h"

namespace cohort::rl {
namespace {

struct Kind {
  std::string_view name;
  std::unique_ptr<Reward> (*make)(const nlohmann::json&);
};
constexpr Kind kKinds[] = {
    {"format", make_format_reward},
    {"math_answer", make_math_answer_reward},
    {"countdown", make_countdown_reward},
    {"exact", make_exact_reward},
    {"length", make_length_reward},
    {"language", make_language_reward},
    {"code_tests", make_code_tests_reward},
    {"command", make_command_reward},
};

std::string label_of(const RewardConfig& config) {
  if (!config.options.is_object() || !config.options.contains("label")) return config.name;
  const nlohmann::json& label = config.options["label"];
  COHORT_CHECK_INPUT(label.is_string() && !label.get<std::string>().empty(),
                     "reward {}: label must be a name",
                     config.name);
  return label.get<std::string>();
}

}  // namespace

std::unique_ptr<Reward> make_reward(const RewardConfig& config) {
  std::string names;
  for (const Kind& kind : kKinds) {
    if (kind.name == config.name) return kind.make(config.options);
    names += (names.empty() ? "" : ", ") + std::string(kind.name);
  }
  throw InputError(fmt::format("no reward is called \"{}\"; there are {}", config.name, names));
}

RewardSum::RewardSum(std::span<const RewardConfig> configs) {
  COHORT_CHECK_INPUT(!configs.empty(), "rl.rewards is empty: name at least one reward");
  for (const RewardConfig& config : configs) {
    const std::string label = label_of(config);
    COHORT_CHECK_INPUT(std::isfinite(config.weight),
                       "reward {}: weight is {}; it must be a finite number",
                       label,
                       config.weight);
    COHORT_CHECK_INPUT(std::find(labels_.begin(), labels_.end(), label) == labels_.end(),
                       "two rewards are called {}: give one of them another label in its options",
                       label);
    rewards_.push_back(make_reward(config));
    labels_.push_back(label);
    weights_.push_back(config.weight);
  }
}

Scores RewardSum::score(std::span<const Completion> batch) {
  Scores scores;
  scores.total.assign(batch.size(), 0.0);
  for (size_t i = 0; i < rewards_.size(); ++i) {
    std::vector<double> values = rewards_[i]->score(batch);
    COHORT_CHECK(values.size() == batch.size(),
                 "reward {} gave {} values for {} completions",
                 labels_[i],
                 values.size(),
                 batch.size());
    for (size_t sample = 0; sample < batch.size(); ++sample)
      scores.total[sample] += weights_[i] * values[sample];
    scores.components.push_back(std::move(values));
  }
  return scores;
}

int64_t RewardSum::failures() const {
  int64_t sum = 0;
  for (const auto& reward : rewards_) sum += reward->failures();
  return sum;
}

std::string RewardSum::first_failure() const {
  for (const auto& reward : rewards_)
    if (std::string reason = reward->first_failure(); !reason.empty()) return reason;
  return "";
}

}  // namespace cohort::rl
