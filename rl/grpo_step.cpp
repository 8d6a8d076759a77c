#include "rl/grpo_step.h"

#include <algorithm>

#include "core/base/error.h"
#include "moe/balance.h"

namespace cohort::rl {
namespace {

/// One update's share of this rank, with the counts of all ranks.
struct MiniBatch {
  std::vector<PolicyBatch> micro_batches;
  LossCounts counts;
};

/// What the first update finds when it computes anew what sampling computed.
struct Agreement {
  double drift_max = 0;
  int64_t mismatched = 0, compared = 0;

  void add(const at::Tensor& log_prob, const PolicyBatch& batch, moe::RoutingReplay* replay) {
    const at::Tensor drift =
        (log_prob.detach().to(at::kDouble) - batch.old_log_prob.to(at::kDouble)).abs().max();
    // A NaN stays, whichever side it comes from.
    drift_max = at::maximum(drift, at::full({}, drift_max, at::kDouble)).item<double>();
    if (!replay) return;
    replay->settle();
    mismatched += replay->mismatched;
    compared += replay->compared;
  }

  void reduce(distributed::Communicator& dp) {
    at::Tensor drift = at::full({1}, drift_max, at::kDouble);
    dp.all_reduce(drift, distributed::ReduceOp::kMax);
    at::Tensor pairs = at::tensor({mismatched, compared}, at::kLong);
    dp.all_reduce(pairs);
    drift_max = drift.item<double>();
    mismatched = pairs[0].item<int64_t>();
    compared = pairs[1].item<int64_t>();
  }
};

int64_t counted_tokens(std::span<const PolicySequence> sequences) {
  int64_t tokens = 0;
  for (const auto& one : sequences) tokens += one.counts ? one.tokens() : 0;
  return tokens;
}

std::vector<PolicySequence> share_of_update(std::span<const PolicySequence> sequences,
                                            const GrpoStepOptions& options,
                                            int64_t update) {
  std::vector<PolicySequence> share;
  const auto count = static_cast<int64_t>(sequences.size());
  for (int64_t i = 0; i < count; ++i)
    if (i / options.group_size % options.mini_batches == update)
      share.push_back(sequences[static_cast<size_t>(i)]);
  return share;
}

/// Whether anything is learned from a sequence. Where its advantage is 0 and there is no KL term
/// its gradient is exactly 0 (all samples of its group were as good), and it costs no pass.
bool teaches(const PolicySequence& one, const GrpoStepOptions& options) {
  return one.counts && (one.advantage != 0 || options.loss.beta != 0);
}

/// Those that teach first, both in order: the front is what passes are made over.
int64_t sort_by_use(std::vector<PolicySequence>& sequences, const GrpoStepOptions& options) {
  const auto rest = std::stable_partition(
      sequences.begin(), sequences.end(), [&](const auto& one) { return teaches(one, options); });
  return rest - sequences.begin();
}

/// Cuts the front of `sequences` into `parts` batches of nearly `useful / parts` sequences; one
/// that would be empty gets a sequence of the rest, because every rank makes as many passes.
std::vector<PolicyBatch> cut(std::span<const PolicySequence> sequences,
                             int64_t useful,
                             int64_t parts) {
  const int64_t count = std::max(useful, parts);
  std::vector<PolicyBatch> out;
  for (int64_t i = 0; i < parts; ++i) {
    const int64_t begin = count * i / parts, end = count * (i + 1) / parts;
    out.push_back(
        pack(sequences.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin))));
  }
  return out;
}

std::vector<MiniBatch> make_mini_batches(std::span<const PolicySequence> sequences,
                                         const GrpoStepOptions& options,
                                         distributed::Communicator& dp) {
  const int64_t updates = options.mini_batches;
  std::vector<std::vector<PolicySequence>> shares;
  std::vector<int64_t> useful;
  at::Tensor tokens = at::zeros({updates}, at::kLong), parts = at::ones({updates}, at::kLong);
  for (int64_t update = 0; update < updates; ++update) {
    auto& share = shares.emplace_back(share_of_update(sequences, options, update));
    tokens[update] = counted_tokens(share);
    useful.push_back(sort_by_use(share, options));
    parts[update] =
        std::max<int64_t>(1, (useful.back() + options.micro_batch - 1) / options.micro_batch);
  }
  dp.all_reduce(tokens);
  dp.all_reduce(parts, distributed::ReduceOp::kMax);
  std::vector<MiniBatch> out;
  for (int64_t update = 0; update < updates; ++update) {
    const auto& share = shares[static_cast<size_t>(update)];
    out.push_back({cut(share, useful[static_cast<size_t>(update)], parts[update].item<int64_t>()),
                   {static_cast<int64_t>(share.size()) * dp.size(),
                    std::max<int64_t>(1, tokens[update].item<int64_t>())}});
  }
  return out;
}

void add_reference(moe::Transformer& reference,
                   std::vector<MiniBatch>& mini_batches,
                   double temperature) {
  at::NoGradGuard no_grad;
  moe::PassOptions pass;
  pass.absorbed = true;
  for (auto& mini_batch : mini_batches)
    for (auto& batch : mini_batch.micro_batches)
      batch.ref_log_prob = log_probs(reference, batch, pass, temperature).log_prob;
}

/// One update. `agreement` is filled in where it is given.
moe::StepReport update(moe::Transformer& model,
                       distributed::ShardedOptimizer& optimizer,
                       const distributed::Mesh& mesh,
                       const MiniBatch& mini_batch,
                       const GrpoStepOptions& options,
                       Agreement* agreement) {
  const auto loss = [&](int64_t i) {
    const PolicyBatch& batch = mini_batch.micro_batches[static_cast<size_t>(i)];
    moe::PassOptions pass;
    pass.count_loads = true;
    pass.recompute = options.recompute;
    pass.absorbed = true;
    if (batch.expert_TLK.defined()) {
      pass.replay = std::make_shared<moe::RoutingReplay>();
      pass.replay->expert_TLK = batch.expert_TLK;
    }
    const at::Tensor log_prob = log_probs(model, batch, pass, options.temperature).log_prob;
    if (agreement) agreement->add(log_prob, batch, pass.replay.get());
    const PolicyLoss share =
        policy_loss(policy_tokens(batch, log_prob), options.loss, mini_batch.counts);
    return moe::LossTerms{share.total,
                          {{"kl", at::scalar_tensor(share.kl, at::kDouble)},
                           {"clipped", at::scalar_tensor(share.clipped, at::kDouble)}}};
  };
  return moe::train_step(model,
                         optimizer,
                         mesh,
                         static_cast<int64_t>(mini_batch.micro_batches.size()),
                         loss,
                         options.step);
}

void add_update(GrpoStepReport& report, const moe::StepReport& update) {
  report.loss += update.loss;
  report.kl += update.parts[0].second;
  report.clip_fraction += update.parts[1].second;
  report.grad_norm += update.update.grad_norm;
  report.updates.push_back(update.update);
  if (report.loads.empty()) {
    report.loads = update.loads;
    return;
  }
  for (size_t i = 0; i < update.loads.size(); ++i)
    report.loads[i] = report.loads[i] + update.loads[i];
}

}  // namespace

GrpoStepReport grpo_step(moe::Transformer& model,
                         distributed::ShardedOptimizer& optimizer,
                         const distributed::Mesh& mesh,
                         moe::Transformer* reference,
                         std::span<const PolicySequence> sequences,
                         const GrpoStepOptions& options) {
  const auto count = static_cast<int64_t>(sequences.size());
  COHORT_CHECK(count > 0 && count % (options.mini_batches * options.group_size) == 0,
               "{} sequences do not make {} mini-batches of groups of {}",
               count,
               options.mini_batches,
               options.group_size);
  auto mini_batches = make_mini_batches(sequences, options, *mesh.dp);
  if (reference) add_reference(*reference, mini_batches, options.temperature);
  GrpoStepReport report;
  Agreement agreement;
  double tokens = 0;
  for (int64_t pass = 0; pass < options.passes; ++pass)
    for (size_t i = 0; i < mini_batches.size(); ++i) {
      Agreement* measure = pass == 0 && i == 0 ? &agreement : nullptr;
      add_update(report, update(model, optimizer, mesh, mini_batches[i], options, measure));
      tokens += static_cast<double>(mini_batches[i].counts.tokens);
    }
  agreement.reduce(*mesh.dp);
  report.logp_drift_max = agreement.drift_max;
  report.routing_mismatched = agreement.mismatched;
  report.routing_compared = agreement.compared;
  const auto updates = static_cast<double>(report.updates.size());
  report.loss /= updates;
  report.grad_norm /= updates;
  report.kl /= tokens;
  report.clip_fraction /= tokens;
  for (const auto& load : report.loads)
    report.max_violation += moe::max_violation(load) / static_cast<double>(report.loads.size());
  return report;
}

}  // namespace cohort::rl
