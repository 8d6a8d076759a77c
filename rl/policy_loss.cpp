#include "rl/policy_loss.h"

#include <algorithm>

#include "core/base/error.h"

namespace cohort::rl {
namespace {

constexpr std::pair<const char*, PolicyLossKind> kNames[] = {{"grpo", PolicyLossKind::kGrpo},
                                                             {"bnpo", PolicyLossKind::kBnpo},
                                                             {"dr_grpo", PolicyLossKind::kDrGrpo},
                                                             {"dapo", PolicyLossKind::kDapo},
                                                             {"gspo", PolicyLossKind::kGspo}};

void check_row(const char* name, const at::Tensor& t, int64_t n) {
  COHORT_CHECK(t.defined() && t.dim() == 1 && t.size(0) == n,
               "policy_loss: {} must have {} elements, not {}",
               name,
               n,
               t.defined() ? fmt::format("{}", fmt::join(t.sizes(), " x ")) : "none at all");
}

void check(const PolicyTokens& tokens, const PolicyLossOptions& options, const LossCounts& counts) {
  COHORT_CHECK(tokens.log_prob.defined() && tokens.log_prob.dim() == 1 &&
                   tokens.advantage.defined() && tokens.advantage.dim() == 1,
               "policy_loss: log_prob and advantage must be one row each");
  const int64_t n = tokens.log_prob.size(0), sequences = tokens.advantage.size(0);
  check_row("old_log_prob", tokens.old_log_prob, n);
  if (options.beta != 0 || tokens.ref_log_prob.defined())
    check_row("ref_log_prob", tokens.ref_log_prob, n);
  check_row("sequence", tokens.sequence, n);
  check_row("mask", tokens.mask, n);
  COHORT_CHECK(tokens.sequence.scalar_type() == at::kLong &&
                   tokens.mask.scalar_type() == at::kBool &&
                   tokens.advantage.scalar_type() == at::kDouble,
               "policy_loss: sequence, mask and advantage are {}, {} and {}, not int64, bool, fp64",
               at::toString(tokens.sequence.scalar_type()),
               at::toString(tokens.mask.scalar_type()),
               at::toString(tokens.advantage.scalar_type()));
  const auto sequence = tokens.sequence.contiguous();
  const int64_t* s = sequence.const_data_ptr<int64_t>();
  COHORT_CHECK(n == 0 || (std::is_sorted(s, s + n) && s[0] >= 0 && s[n - 1] < sequences),
               "policy_loss: sequence must ascend within 0 .. {}, the advantages given; it runs "
               "from {} to {}",
               sequences - 1,
               s[0],
               s[n - 1]);
  COHORT_CHECK(counts.sequences > 0 && counts.tokens >= 0 && options.max_new_tokens > 0,
               "policy_loss: {} sequences, {} tokens and max_new_tokens {} cannot divide",
               counts.sequences,
               counts.tokens,
               options.max_new_tokens);
}

/// The tokens that count, in fp64.
struct Counted {
  at::Tensor log_prob, log_ratio, ref_log_prob, sequence, advantage;
  at::Tensor length;  ///< fp64 [sequences], at least 1.
};

Counted counted(const PolicyTokens& tokens) {
  const auto kept = tokens.mask.nonzero().squeeze(1);
  const auto pick = [&](const at::Tensor& t) { return t.index_select(0, kept); };
  Counted c;
  c.log_prob = pick(tokens.log_prob).to(at::kDouble);
  c.log_ratio = c.log_prob - pick(tokens.old_log_prob.detach()).to(at::kDouble);
  if (tokens.ref_log_prob.defined())
    c.ref_log_prob = pick(tokens.ref_log_prob.detach()).to(at::kDouble);
  c.sequence = pick(tokens.sequence);
  c.advantage = tokens.advantage.index_select(0, c.sequence);
  const auto ones = at::ones({kept.size(0)}, tokens.advantage.options());
  c.length = at::zeros_like(tokens.advantage).index_add(0, c.sequence, ones).clamp_min(1);
  return c;
}

/// Of each token; under gspo that of its sequence.
at::Tensor ratio_of(const Counted& c, PolicyLossKind kind) {
  if (kind != PolicyLossKind::kGspo) return c.log_ratio.exp();
  const auto sum = at::zeros_like(c.length).index_add(0, c.sequence, c.log_ratio);
  return (sum / c.length).exp().index_select(0, c.sequence);
}

/// What each token's term is multiplied by.
at::Tensor weight_of(const Counted& c, const PolicyLossOptions& options, const LossCounts& counts) {
  const double sequences = static_cast<double>(counts.sequences);
  switch (options.kind) {
    case PolicyLossKind::kGrpo:
    case PolicyLossKind::kGspo:
      return (c.length * sequences).reciprocal().index_select(0, c.sequence);
    case PolicyLossKind::kDrGrpo:
      return at::full_like(c.advantage,
                           1 / (sequences * static_cast<double>(options.max_new_tokens)));
    case PolicyLossKind::kBnpo:
    case PolicyLossKind::kDapo:
      break;
  }
  return at::full_like(c.advantage, 1 / static_cast<double>(std::max<int64_t>(counts.tokens, 1)));
}

}  // namespace

PolicyLossKind policy_loss_kind(const std::string& name) {
  for (const auto& [known, kind] : kNames)
    if (name == known) return kind;
  COHORT_CHECK_INPUT(false, "policy loss '{}': should be grpo, bnpo, dr_grpo, dapo or gspo", name);
}

PolicyLoss policy_loss(const PolicyTokens& tokens,
                       const PolicyLossOptions& options,
                       const LossCounts& counts) {
  check(tokens, options, counts);
  const auto c = counted(tokens);
  const double low = 1 - options.clip_low, high = 1 + options.clip_high;
  const auto ratio = ratio_of(c, options.kind);
  auto term = -at::minimum(ratio * c.advantage, ratio.clamp(low, high) * c.advantage);
  PolicyLoss loss;
  if (c.ref_log_prob.defined()) {
    const auto to_ref = c.ref_log_prob - c.log_prob;
    const auto k3 = at::expm1(to_ref) - to_ref;
    loss.kl = k3.detach().sum().item<double>();
    if (options.beta != 0) term = term + options.beta * k3;
  }
  loss.total = (term * weight_of(c, options, counts)).sum().to(tokens.log_prob.scalar_type());
  const auto r = ratio.detach();
  loss.ratio_sum = r.sum().item<double>();
  loss.clipped = ((c.advantage > 0).logical_and(r > high))
                     .logical_or((c.advantage < 0).logical_and(r < low))
                     .sum()
                     .item<double>();
  return loss;
}

}  // namespace cohort::rl
