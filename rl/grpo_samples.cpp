#include "rl/grpo_samples.h"

#include <algorithm>

namespace cohort::rl {

using nlohmann::ordered_json;

ordered_json sample_line(const Problem& problem,
                         const Sample& sample,
                         const std::vector<std::string>& labels,
                         Split split) {
  ordered_json rewards = ordered_json::object();
  for (size_t i = 0; i < labels.size(); ++i) rewards[labels[i]] = sample.components[i];
  const bool train = split == Split::kTrain;
  ordered_json line{{"prompt", problem.prompt},
                    {"completion", sample.text},
                    {"reward", sample.reward},
                    {"rewards", rewards}};
  line["advantage"] = train ? ordered_json(sample.advantage) : ordered_json();
  line["tokens"] = sample.generated.tokens.size();
  line["truncated"] = sample.truncated();
  line["problem_id"] = problem.id;
  const bool has_answer = problem.data.is_object() && problem.data.contains("answer");
  line["answer"] = has_answer ? ordered_json(problem.data["answer"]) : ordered_json();
  line["split"] = train ? "train" : "eval";
  return line;
}

std::vector<ordered_json> sample_lines(std::span<const Group> groups,
                                       const std::vector<std::string>& labels,
                                       int64_t most) {
  std::vector<ordered_json> lines;
  for (const Group& group : groups.first(std::min<size_t>(2, groups.size()))) {
    const auto count = std::min<size_t>(static_cast<size_t>(most / 2), group.samples.size());
    for (size_t i = 0; i < count; ++i)
      lines.push_back(sample_line(group.problem, group.samples[i], labels, Split::kTrain));
  }
  return lines;
}

}  // namespace cohort::rl
