// Losses of GRPO (arXiv:2402.03300) and its relatives, on token log-probabilities.
//
// With r = exp(logp - old) a token (GSPO, arXiv:2507.18071: exp of the mean of logp - old over the
// sequence), A the advantage of its sequence and k3 = exp(ref - logp) - (ref - logp) - 1, a token's
// term is
//   -min(r A, clip(r, 1 - clip_low, 1 + clip_high) A) + beta k3
// and the terms t of sequences s of length |s| are added to
//   grpo, gspo  mean over sequences of (1 / |s|) sum_t       bnpo, dapo  sum / all tokens
//   dr_grpo     sum / (sequences x max_new_tokens)
// A sequence without tokens (masked) has the mean 0 and still counts as one. Counts are those of
// all ranks and micro-batches of an update, so that the loss knows neither (LossCounts). dapo
// divides by the tokens of the whole update, as bnpo does here: the two differ in trainers whose
// normaliser is the micro-batch.
#pragma once
#include <ATen/ATen.h>

#include <string>

#include "core/config/config.h"

namespace cohort::rl {

enum class PolicyLossKind { kGrpo, kBnpo, kDrGrpo, kDapo, kGspo };

/// "grpo", "bnpo", "dr_grpo", "dapo", "gspo"; throws InputError for another.
PolicyLossKind policy_loss_kind(const std::string& name);

struct PolicyLossOptions {
  PolicyLossKind kind = PolicyLossKind::kGrpo;
  double clip_low = 0.2, clip_high = 0.2;
  double beta = 0;
  int64_t max_new_tokens = 1;  ///< Of dr_grpo.
};

/// What the sums are divided by: of a whole update, over all ranks and micro-batches.
struct LossCounts {
  int64_t sequences = 1;
  int64_t tokens = 1;  ///< Tokens that count; a loss over none divides by 1.
};

/// Completion tokens of some sequences, one after another. All tokens of a sequence that count are
/// here: its mean is taken over them. What stands where `mask` is false has no effect, NaN neither.
struct PolicyTokens {
  at::Tensor log_prob;      ///< [n], of the model being trained; differentiable.
  at::Tensor old_log_prob;  ///< [n], at sampling.
  at::Tensor ref_log_prob;  ///< [n] of the reference model; undefined when beta is 0.
  at::Tensor sequence;      ///< int64 [n], ascending: which sequence, from 0.
  at::Tensor mask;          ///< bool [n]: whether the token counts.
  at::Tensor advantage;     ///< fp64 [sequences].
};

/// `total` is this micro-batch's share of the loss; the rest are sums over its counted tokens, to
/// be divided by LossCounts::tokens.
struct PolicyLoss {
  at::Tensor total;      ///< Scalar in the dtype of log_prob, differentiable in it.
  double kl = 0;         ///< Sum of k3; 0 without a reference.
  double clipped = 0;    ///< Tokens whose ratio was clipped on the side that their A pushes to.
  double ratio_sum = 0;  ///< Sum of r.
};

/// Computed in fp64 and rounded once, whatever the dtypes of the log-probabilities. Throws Error
/// for tensors that do not fit each other, sequences that do not ascend or have no advantage, and a
/// beta without ref_log_prob.
PolicyLoss policy_loss(const PolicyTokens& tokens,
                       const PolicyLossOptions& options,
                       const LossCounts& counts);

}  // namespace cohort::rl
