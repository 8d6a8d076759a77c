#include "rl/grpo_samples.h"

#include <algorithm>

namespace cohort::rl {

using nlohmann::ordered_json;

ordered_json sample_line(const ShownSample& sample, const std::vector<std::string>& labels) {
  const Problem& problem = sample.problem;
  ordered_json rewards = ordered_json::object();
  for (size_t i = 0; i < labels.size(); ++i) rewards[labels[i]] = sample.components[i];
  const bool has_answer = problem.data.is_object() && problem.data.contains("answer");
  ordered_json line;
  line["prompt"] = problem.prompt;
  line["completion"] = sample.text;
  line["reward"] = sample.reward;
  line["rewards"] = std::move(rewards);
  line["advantage"] = sample.advantage ? ordered_json(*sample.advantage) : ordered_json();
  line["tokens"] = sample.tokens;
  line["truncated"] = sample.truncated;
  line["problem_id"] = problem.id;
  line["answer"] = has_answer ? ordered_json(problem.data["answer"]) : ordered_json();
  line["split"] = sample.advantage ? "train" : "eval";
  return line;
}

std::vector<ordered_json> sample_lines(std::span<const Group> groups,
                                       const std::vector<std::string>& labels,
                                       int64_t most) {
  std::vector<ordered_json> lines;
  for (const Group& group : groups.first(std::min<size_t>(2, groups.size()))) {
    const auto count = std::min<size_t>(static_cast<size_t>(most / 2), group.samples.size());
    for (size_t i = 0; i < count; ++i) {
      const Sample& sample = group.samples[i];
      lines.push_back(sample_line({group.problem,
                                   sample.text,
                                   sample.reward,
                                   sample.components,
                                   sample.advantage,
                                   static_cast<int64_t>(sample.generated.tokens.size()),
                                   sample.truncated()},
                                  labels));
    }
  }
  return lines;
}

}  // namespace cohort::rl
