#include "rl/rollout.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <numeric>

#include "core/base/error.h"
#include "core/base/rng.h"
#include "moe/training_run.h"

namespace cohort::rl {
namespace {

uint64_t sample_seed(const RolloutOptions& options, int64_t prompt_idx, int64_t sample_idx) {
  const uint64_t of_step =
      core::random_bits(options.seed, core::stream_of("rollout"), options.step);
  return core::random_bits(of_step, prompt_idx, sample_idx);
}

/// Draws and scores groups, and keeps count.
class Drawing {
 public:
  Drawing(const RolloutOptions& options,
          const Task& task,
          const core::Tokenizer& tokenizer,
          RewardSum& rewards,
          const Generate& generate,
          Rollout& rollout)
      : options_(options),
        task_(task),
        tokenizer_(tokenizer),
        rewards_(rewards),
        generate_(generate),
        rollout_(rollout) {
    rollout_.sums.components.assign(rewards_.labels().size(), 0.0);
  }

  std::vector<Group> groups(const std::vector<int64_t>& prompts) {
    std::vector<Group> groups;
    std::vector<GenerationRequest> requests;
    for (int64_t prompt_idx : prompts) {
      Group group;
      group.prompt_idx = prompt_idx;
      group.problem = task_.problem(Split::kTrain, prompt_idx);
      group.prompt = prompt_ids(tokenizer_, group.problem.prompt, options_.bos_token_id);
      GenerationRequest request{group.prompt, {}};
      for (int64_t i = 0; i < options_.group_size; ++i)
        request.seeds.push_back(sample_seed(options_, prompt_idx, i));
      requests.push_back(std::move(request));
      groups.push_back(std::move(group));
    }
    const double start = moe::seconds_now();
    auto generated = generate_(requests);
    const double generated_at = moe::seconds_now();
    rollout_.generate_seconds += generated_at - start;
    COHORT_CHECK(generated.size() == groups.size(),
                 "{} groups came back for {} prompts",
                 generated.size(),
                 groups.size());
    score(groups, generated);
    rollout_.reward_seconds += moe::seconds_now() - generated_at;
    return groups;
  }

 private:
  void score(std::vector<Group>& groups, std::vector<std::vector<Generated>>& generated) {
    std::vector<Completion> completions;
    for (size_t g = 0; g < groups.size(); ++g)
      for (const auto& sample : generated[g])
        completions.push_back(completion_of(tokenizer_, groups[g].problem, sample));
    const int64_t failures = rewards_.failures();
    const Scores scores = rewards_.score(completions);
    rollout_.sums.failures += static_cast<double>(rewards_.failures() - failures);
    size_t at = 0;
    for (size_t g = 0; g < groups.size(); ++g) {
      for (auto& one : generated[g]) {
        Sample sample;
        sample.generated = std::move(one);
        sample.text = std::move(completions[at].text);
        sample.reward = scores.total[at];
        for (const auto& component : scores.components) sample.components.push_back(component[at]);
        groups[g].samples.push_back(std::move(sample));
        ++at;
      }
      count(groups[g]);
    }
  }

  void count(const Group& group) {
    RolloutSums& sums = rollout_.sums;
    sums.groups += 1;
    sums.degenerate += group.degenerate();
    for (const Sample& sample : group.samples) {
      sums.completions += 1;
      sums.reward += sample.reward;
      sums.passed += sample.components[0] >= 1;
      sums.tokens += static_cast<double>(sample.generated.tokens.size());
      sums.truncated += sample.truncated();
      for (size_t i = 0; i < sample.components.size(); ++i)
        sums.components[i] += sample.components[i];
      const auto& entropy = sample.generated.entropy;
      sums.entropy += std::accumulate(entropy.begin(), entropy.end(), 0.0);
    }
  }

  const RolloutOptions& options_;
  const Task& task_;
  const core::Tokenizer& tokenizer_;
  RewardSum& rewards_;
  const Generate& generate_;
  Rollout& rollout_;
};

/// Which groups of all ranks have no variance: int64 [prompts], in the order of groups.
at::Tensor degenerate_flags(const std::vector<Group>& groups, distributed::Communicator& dp) {
  at::Tensor mine = at::zeros({static_cast<int64_t>(groups.size())}, at::kLong);
  for (size_t i = 0; i < groups.size(); ++i)
    mine[static_cast<int64_t>(i)] = static_cast<int64_t>(groups[i].degenerate());
  at::Tensor all = at::empty({mine.numel() * dp.size()}, at::kLong);
  dp.all_gather(all, mine);
  return all;
}

/// One round of dynamic sampling (DAPO, arXiv:2503.14476, section 3.2). Returns whether there was
/// something to replace.
bool refill(Drawing& drawing, Rollout& rollout, distributed::Communicator& dp) {
  const at::Tensor flags = degenerate_flags(rollout.groups, dp);
  const int64_t* flag = flags.const_data_ptr<int64_t>();
  const auto per_rank = static_cast<int64_t>(rollout.groups.size());
  std::vector<int64_t> prompts;
  std::vector<size_t> places;
  for (int64_t i = 0; i < flags.numel(); ++i) {
    if (!flag[i]) continue;
    const int64_t prompt_idx = rollout.next_prompt++;
    if (i / per_rank != dp.rank()) continue;
    prompts.push_back(prompt_idx);
    places.push_back(static_cast<size_t>(i % per_rank));
  }
  if (flags.sum().item<int64_t>() == 0) return false;
  auto drawn = drawing.groups(prompts);
  for (size_t i = 0; i < drawn.size(); ++i) rollout.groups[places[i]] = std::move(drawn[i]);
  return true;
}

void set_advantages(std::vector<Group>& groups,
                    int64_t group_size,
                    AdvantageScale scale,
                    distributed::Communicator& dp) {
  std::vector<double> rewards;
  for (const Group& group : groups)
    for (const Sample& sample : group.samples) rewards.push_back(sample.reward);
  const at::Tensor values = advantages(at::tensor(rewards, at::kDouble), group_size, scale, dp);
  const double* value = values.const_data_ptr<double>();
  for (Group& group : groups)
    for (Sample& sample : group.samples) sample.advantage = *value++;
}

}  // namespace

bool Group::degenerate() const {
  return std::all_of(samples.begin(), samples.end(), [&](const Sample& sample) {
    return sample.reward == samples[0].reward;
  });
}

void RolloutSums::reduce(distributed::Communicator& dp) {
  std::vector<double*> values{&completions,
                              &groups,
                              &degenerate,
                              &reward,
                              &passed,
                              &tokens,
                              &truncated,
                              &entropy,
                              &failures};
  for (double& component : components) values.push_back(&component);
  std::vector<double> mine;
  for (const double* value : values) mine.push_back(*value);
  at::Tensor sums = at::tensor(mine, at::kDouble);
  dp.all_reduce(sums);
  const double* sum = sums.const_data_ptr<double>();
  for (size_t i = 0; i < values.size(); ++i) *values[i] = sum[i];
}

std::vector<int32_t> prompt_ids(const core::Tokenizer& tokenizer,
                                const std::string& prompt,
                                int64_t bos_token_id) {
  std::vector<int32_t> ids;
  if (bos_token_id >= 0) ids.push_back(static_cast<int32_t>(bos_token_id));
  const auto text = tokenizer.encode(prompt);
  ids.insert(ids.end(), text.begin(), text.end());
  return ids;
}

Completion completion_of(const core::Tokenizer& tokenizer,
                         const Problem& problem,
                         const Generated& generated) {
  std::span<const int32_t> text(generated.tokens);
  if (generated.stop == StopReason::kEndToken) text = text.first(text.size() - 1);
  return {problem.prompt,
          tokenizer.decode(text),
          static_cast<int64_t>(generated.tokens.size()),
          generated.stop == StopReason::kLength,
          problem.data};
}

void warn_of_failures(RewardSum& rewards,
                      int64_t failures,
                      int64_t completions,
                      distributed::Communicator& dp) {
  if (failures == 0 || !rewards.take_warning()) return;
  for (const std::string& reason : dp.all_gather_text(rewards.first_failure())) {
    if (reason.empty()) continue;
    if (dp.rank() == 0)
      spdlog::warn("{}: {} of {} samples get 0; further failures are only counted",
                   reason,
                   failures,
                   completions);
    return;
  }
}

Rollout roll_out(const RolloutOptions& options,
                 const Task& task,
                 const core::Tokenizer& tokenizer,
                 RewardSum& rewards,
                 distributed::Communicator& dp,
                 const Generate& generate) {
  COHORT_CHECK(options.prompts % dp.size() == 0,
               "{} prompts cannot be shared out over {} ranks",
               options.prompts,
               dp.size());
  Rollout rollout;
  Drawing drawing(options, task, tokenizer, rewards, generate, rollout);
  const int64_t per_rank = options.prompts / dp.size();
  std::vector<int64_t> prompts(static_cast<size_t>(per_rank));
  std::iota(prompts.begin(), prompts.end(), options.first_prompt + dp.rank() * per_rank);
  rollout.groups = drawing.groups(prompts);
  rollout.next_prompt = options.first_prompt + options.prompts;
  for (int64_t round = 0; round < options.refill_rounds; ++round)
    if (!refill(drawing, rollout, dp)) break;
  set_advantages(rollout.groups, options.group_size, options.scale, dp);
  rollout.sums.reduce(dp);
  warn_of_failures(rewards,
                   static_cast<int64_t>(rollout.sums.failures),
                   static_cast<int64_t>(rollout.sums.completions),
                   dp);
  return rollout;
}

}  // namespace cohort::rl
