#include "rl/policy_batch.h"

#include "core/base/device_branch.h"
#include "core/base/error.h"

namespace cohort::rl {
namespace {

template <typename T>
at::Tensor filled(const std::vector<T>& values, at::ScalarType dtype) {
  at::Tensor out = at::empty({static_cast<int64_t>(values.size())}, dtype);
  std::copy(values.begin(), values.end(), out.data_ptr<T>());
  return out;
}

}  // namespace

PolicyBatch pack(std::span<const PolicySequence> sequences) {
  COHORT_CHECK(!sequences.empty(), "a batch of no sequences");
  std::vector<int64_t> ids, row, target, sequence;
  std::vector<float> old_log_prob;
  std::vector<uint8_t> mask;
  std::vector<double> advantage;
  std::vector<at::Tensor> experts;
  PolicyBatch batch;
  for (const PolicySequence& one : sequences) {
    const Generated& generated = *one.generated;
    COHORT_CHECK(!one.prompt.empty() && !generated.tokens.empty(),
                 "a sequence of {} prompt tokens and {} generated ones",
                 one.prompt.size(),
                 generated.tokens.size());
    const auto first = static_cast<int64_t>(ids.size());
    ids.insert(ids.end(), one.prompt.begin(), one.prompt.end());
    ids.insert(ids.end(), generated.tokens.begin(), generated.tokens.end() - 1);
    const int64_t count = static_cast<int64_t>(ids.size()) - first;
    batch.layout.runs.push_back({0, first, count, 0});
    const int64_t predicts_first = first + static_cast<int64_t>(one.prompt.size()) - 1;
    for (int64_t i = 0; i < one.tokens(); ++i) {
      row.push_back(predicts_first + i);
      target.push_back(generated.tokens[static_cast<size_t>(i)]);
      sequence.push_back(static_cast<int64_t>(advantage.size()));
      mask.push_back(one.counts);
    }
    old_log_prob.insert(old_log_prob.end(), generated.log_prob.begin(), generated.log_prob.end());
    advantage.push_back(one.advantage);
    if (generated.experts.defined()) experts.push_back(generated.experts);
  }
  batch.layout.batch = 1;
  batch.layout.seq_len = static_cast<int64_t>(ids.size());
  batch.layout.one_run_a_row = sequences.size() == 1;
  batch.input_ids = filled(ids, at::kLong).unsqueeze(0);
  batch.row = filled(row, at::kLong);
  batch.target = filled(target, at::kLong);
  batch.old_log_prob = filled(old_log_prob, at::kFloat);
  batch.sequence = filled(sequence, at::kLong);
  batch.mask = filled(mask, at::kByte).to(at::kBool);
  batch.advantage = filled(advantage, at::kDouble);
  if (!experts.empty()) batch.expert_TLK = at::cat(experts);
  COHORT_CHECK(old_log_prob.size() == target.size() &&
                   (experts.empty() || batch.expert_TLK.size(0) == batch.layout.seq_len),
               "{} tokens with {} log-probabilities; experts of {} of {} inputs",
               target.size(),
               old_log_prob.size(),
               experts.empty() ? 0 : batch.expert_TLK.size(0),
               ids.size());
  return batch;
}

core::TokenLogProbs log_probs(moe::Transformer& model,
                              const PolicyBatch& batch,
                              const moe::PassOptions& pass,
                              double temperature) {
  const auto out = model.forward(batch.input_ids, batch.layout, pass);
  const at::Tensor row = batch.row.to(out.hidden.device(), /*non_blocking=*/true);
  const at::Tensor x = out.hidden.reshape({-1, out.hidden.size(-1)}).index_select(0, row);
  auto values = core::token_log_probs(x, model.head(), batch.target, temperature);
  // The losses of some numbers a token are the CPU's.
  values.log_prob = core::to_host(values.log_prob);
  return values;
}

PolicyTokens policy_tokens(const PolicyBatch& batch, const at::Tensor& log_prob) {
  return {log_prob,
          batch.old_log_prob.to(log_prob.scalar_type()),
          batch.ref_log_prob,
          batch.sequence,
          batch.mask,
          batch.advantage};
}

}  // namespace cohort::rl
