#include "rl/grpo_evaluation.h"

#include <map>

#include "rl/components.h"
#include "rl/grpo_samples.h"

namespace cohort::rl {
namespace {

using nlohmann::ordered_json;

constexpr int64_t kShownProblems = 8;

/// Lines of all ranks in the order of the problems: each rank holds some of them.
std::vector<ordered_json> shown_samples(const Evaluation& evaluation,
                                        const std::vector<Problem>& problems,
                                        const std::vector<std::string>& labels,
                                        distributed::Communicator& dp) {
  ordered_json mine = ordered_json::array();
  for (const auto& one : evaluation.completions)
    if (one.problem_idx < kShownProblems && one.sample_idx == 0)
      mine.push_back({one.problem_idx,
                      sample_line({problems[static_cast<size_t>(one.problem_idx)],
                                   one.text,
                                   one.reward,
                                   one.components,
                                   std::nullopt,
                                   one.tokens,
                                   one.truncated},
                                  labels)});
  std::map<int64_t, ordered_json> lines;
  for (const auto& text :
       dp.all_gather_text(mine.dump(-1, ' ', false, ordered_json::error_handler_t::replace)))
    for (const auto& entry : ordered_json::parse(text)) lines[entry[0].get<int64_t>()] = entry[1];
  std::vector<ordered_json> out;
  for (auto& [problem_idx, line] : lines) out.push_back(std::move(line));
  return out;
}

}  // namespace

HeldOutEvaluation::HeldOutEvaluation(const core::Config& config, uint64_t seed) {
  options_.samples = config.rl.eval_samples;
  options_.seed = seed;
  options_.bos_token_id = config.model.bos_token_id;
  if (config.rl.eval_every == 0) return;
  const auto task = make_task(task_config(config.rl.task, seed));
  problems_ = distinct_problems(*task, Split::kTest, config.rl.eval_problems);
}

std::vector<ordered_json> HeldOutEvaluation::run(const core::Tokenizer& tokenizer,
                                                 RewardSum& rewards,
                                                 distributed::Communicator& dp,
                                                 const Generate& generate,
                                                 ordered_json& line) const {
  const Evaluation result = evaluate(options_, problems_, tokenizer, rewards, dp, generate);
  line["eval_pass_at_1"] = result.pass_at_1;
  line["eval_reward_mean"] = result.reward_mean;
  line["eval_problems"] = result.problems;
  return shown_samples(result, problems_, rewards.labels(), dp);
}

}  // namespace cohort::rl
