#include "rl/evaluate.h"

#include <algorithm>

#include "core/base/error.h"
#include "core/base/rng.h"
#include "rl/rollout.h"

namespace cohort::rl {
namespace {

/// Columns of the table [problem, sample, column] that ranks fill together.
enum Column : int64_t { kTokens, kTruncated, kCorrect, kReward, kComponents };

size_t correct_idx(const EvaluationOptions& options, const std::vector<std::string>& labels) {
  if (options.correct.empty()) return 0;
  const auto found = std::find(labels.begin(), labels.end(), options.correct);
  COHORT_CHECK_INPUT(found != labels.end(),
                     "no reward is called \"{}\" that could tell what is correct; there are {}",
                     options.correct,
                     fmt::join(labels, ", "));
  return static_cast<size_t>(found - labels.begin());
}

GenerationRequest request_of(const Problem& problem,
                             const EvaluationOptions& options,
                             const core::Tokenizer& tokenizer) {
  GenerationRequest request;
  if (options.bos_token_id >= 0)
    request.prompt.push_back(static_cast<int32_t>(options.bos_token_id));
  const auto ids = tokenizer.encode(problem.prompt);
  request.prompt.insert(request.prompt.end(), ids.begin(), ids.end());
  const uint64_t stream = core::stream_of(problem.id);
  for (int64_t i = 0; i < options.samples; ++i)
    request.seeds.push_back(core::random_bits(options.seed, stream, static_cast<uint64_t>(i)));
  return request;
}

Completion scored_text(const core::Tokenizer& tokenizer,
                       const Problem& problem,
                       const Generated& generated) {
  std::span<const int32_t> ids = generated.tokens;
  if (generated.stop == StopReason::kEndToken) ids = ids.first(ids.size() - 1);
  return {problem.prompt,
          tokenizer.decode(ids),
          static_cast<int64_t>(generated.tokens.size()),
          generated.stop == StopReason::kLength,
          problem.data};
}

/// This rank's problems, generated and scored.
std::vector<EvaluatedCompletion> complete(const EvaluationOptions& options,
                                          std::span<const Problem> problems,
                                          const std::vector<int64_t>& mine,
                                          const core::Tokenizer& tokenizer,
                                          RewardSum& rewards,
                                          const Generate& generate) {
  std::vector<GenerationRequest> requests;
  for (const int64_t i : mine) requests.push_back(request_of(problems[i], options, tokenizer));
  const auto generated = generate(requests);
  COHORT_CHECK(generated.size() == mine.size(),
               "{} groups came back for {} problems",
               generated.size(),
               mine.size());
  std::vector<Completion> batch;
  for (size_t i = 0; i < mine.size(); ++i)
    for (const Generated& one : generated[i])
      batch.push_back(scored_text(tokenizer, problems[mine[i]], one));
  const Scores scores = rewards.score(batch);
  const size_t decides = correct_idx(options, rewards.labels());
  std::vector<EvaluatedCompletion> completions;
  for (size_t at = 0; at < batch.size(); ++at) {
    EvaluatedCompletion one;
    one.problem_idx = mine[at / options.samples];
    one.sample_idx = static_cast<int64_t>(at) % options.samples;
    one.answer = answer_of(batch[at].text, options.answer_tag);
    one.text = std::move(batch[at].text);
    one.tokens = batch[at].tokens;
    one.truncated = batch[at].truncated;
    one.correct = scores.components[decides][at] >= 1;
    one.reward = scores.total[at];
    for (const auto& component : scores.components) one.components.push_back(component[at]);
    completions.push_back(std::move(one));
  }
  return completions;
}

/// maj@k of each of this rank's problems, into its place of fp64 [problems].
void fill_majority(const std::vector<EvaluatedCompletion>& completions,
                   int64_t samples,
                   double* majority_of) {
  const auto right = std::make_unique<bool[]>(samples);
  for (size_t first = 0; first < completions.size(); first += samples) {
    std::vector<std::string> answers;
    for (int64_t i = 0; i < samples; ++i) {
      answers.push_back(completions[first + i].answer);
      right[i] = completions[first + i].correct;
    }
    majority_of[completions[first].problem_idx] =
        majority(answers, {right.get(), static_cast<size_t>(samples)});
  }
}

void fill_row(const EvaluatedCompletion& completion, double* row) {
  row[kTokens] = static_cast<double>(completion.tokens);
  row[kTruncated] = completion.truncated;
  row[kCorrect] = completion.correct;
  row[kReward] = completion.reward;
  std::copy(completion.components.begin(), completion.components.end(), row + kComponents);
}

/// Figures over `share`, the share of right samples of each problem.
void count_passes(const std::vector<double>& share,
                  std::span<const Problem> problems,
                  Evaluation& out) {
  const int64_t samples = out.samples;
  for (size_t i = 0; i < share.size(); ++i) {
    out.pass_at_1 += share[i] / static_cast<double>(share.size());
    CategoryResult& category = out.categories[problems[i].category];
    category.problems += 1;
    category.pass_at_1 += share[i];
  }
  for (auto& [name, category] : out.categories)
    category.pass_at_1 /= static_cast<double>(category.problems);
  out.pass_at_1_ci95 = share_interval(share, samples);
  for (int64_t k = 1; k <= samples; k = k < samples ? std::min(2 * k, samples) : k + 1) {
    double sum = 0;
    for (const double one : share)
      sum += pass_at_k(samples, std::llround(one * static_cast<double>(samples)), k);
    out.pass_at_k.emplace_back(k, sum / static_cast<double>(share.size()));
  }
}

}  // namespace

Evaluation evaluate(const EvaluationOptions& options,
                    std::span<const Problem> problems,
                    const core::Tokenizer& tokenizer,
                    RewardSum& rewards,
                    distributed::Communicator& dp,
                    const Generate& generate) {
  COHORT_CHECK_INPUT(!problems.empty() && options.samples >= 1,
                     "there is nothing to evaluate: {} problems, {} samples of each",
                     problems.size(),
                     options.samples);
  correct_idx(options, rewards.labels());
  Evaluation out;
  out.problems = static_cast<int64_t>(problems.size());
  out.samples = options.samples;
  std::vector<int64_t> mine;
  for (int64_t i = dp.rank(); i < out.problems; i += dp.size()) mine.push_back(i);
  const int64_t failures = rewards.failures();
  out.completions = complete(options, problems, mine, tokenizer, rewards, generate);

  // Sums over ranks of tables that each fills in its own places: the same bits on any mesh.
  const auto num_rewards = static_cast<int64_t>(rewards.labels().size());
  at::Tensor table = at::zeros({out.problems, out.samples, kComponents + num_rewards}, at::kDouble);
  at::Tensor majority_of = at::zeros({out.problems}, at::kDouble);
  at::Tensor failed = at::full({1}, rewards.failures() - failures, at::kLong);
  for (const auto& one : out.completions)
    fill_row(one,
             table.data_ptr<double>() +
                 (one.problem_idx * out.samples + one.sample_idx) * table.size(2));
  fill_majority(out.completions, out.samples, majority_of.data_ptr<double>());
  dp.all_reduce(table);
  dp.all_reduce(majority_of);
  dp.all_reduce(failed);
  warn_of_failures(rewards, failed.item<int64_t>(), out.problems * out.samples, dp);

  const at::Tensor means = table.mean(at::IntArrayRef{0, 1});
  const double* mean = means.const_data_ptr<double>();
  const at::Tensor shares = table.select(2, kCorrect).mean(1).contiguous();
  const double* share = shares.const_data_ptr<double>();
  count_passes({share, share + out.problems}, problems, out);
  out.maj_at_k = majority_of.mean().item<double>();
  out.tokens_mean = mean[kTokens];
  out.truncated_fraction = mean[kTruncated];
  out.reward_mean = mean[kReward];
  for (int64_t i = 0; i < num_rewards; ++i)
    out.rewards.emplace_back(rewards.labels()[i], mean[kComponents + i]);
  out.reward_failures = failed.item<int64_t>();
  return out;
}

nlohmann::ordered_json evaluation_json(const Evaluation& evaluation) {
  nlohmann::ordered_json json{{"problems", evaluation.problems},
                              {"samples", evaluation.samples},
                              {"pass_at_1", evaluation.pass_at_1},
                              {"pass_at_1_ci95", evaluation.pass_at_1_ci95},
                              {"avg_at_k", evaluation.pass_at_1},
                              {"pass_at_k", nlohmann::ordered_json::object()},
                              {"maj_at_k", evaluation.maj_at_k},
                              {"categories", nlohmann::ordered_json::object()},
                              {"reward_mean", evaluation.reward_mean},
                              {"rewards", nlohmann::ordered_json::object()},
                              {"completion_tokens_mean", evaluation.tokens_mean},
                              {"truncated_fraction", evaluation.truncated_fraction},
                              {"reward_failures", evaluation.reward_failures}};
  for (const auto& [k, value] : evaluation.pass_at_k) json["pass_at_k"][std::to_string(k)] = value;
  for (const auto& [name, category] : evaluation.categories)
    json["categories"][name] = {{"problems", category.problems}, {"pass_at_1", category.pass_at_1}};
  for (const auto& [label, value] : evaluation.rewards) json["rewards"][label] = value;
  return json;
}

nlohmann::ordered_json completion_json(const EvaluatedCompletion& completion,
                                       const Problem& problem,
                                       const std::vector<std::string>& reward_labels) {
  nlohmann::ordered_json json{{"problem", completion.problem_idx},
                              {"id", problem.id},
                              {"category", problem.category},
                              {"sample", completion.sample_idx},
                              {"prompt", problem.prompt},
                              {"completion", completion.text},
                              {"answer", completion.answer},
                              {"tokens", completion.tokens},
                              {"truncated", completion.truncated},
                              {"correct", completion.correct},
                              {"reward", completion.reward},
                              {"rewards", nlohmann::ordered_json::object()},
                              {"data", problem.data}};
  for (size_t i = 0; i < reward_labels.size(); ++i)
    json["rewards"][reward_labels[i]] = completion.components[i];
  return json;
}

}  // namespace cohort::rl
