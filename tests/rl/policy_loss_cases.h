// Policy-loss cases as padded batches, packed in the ways that a caller may choose.
#pragma once
#include <ATen/ATen.h>

#include <string>
#include <vector>

#include "rl/policy_loss.h"

namespace cohort::tests {

/// Completions of B sequences padded to T tokens.
struct PaddedTokens {
  at::Tensor log_prob, old_log_prob, ref_log_prob;  ///< fp64 [B, T]
  at::Tensor mask;                                  ///< bool [B, T]
  at::Tensor advantage;                             ///< fp64 [B]
};

enum class Packing {
  kMasked,   ///< All B T tokens, padding with mask = false.
  kLeftOut,  ///< Only the tokens that count.
};

/// Sequences [begin, end) of `padded` with log_prob in `dtype`, numbered from 0. log_prob is not
/// required to have a gradient.
inline rl::PolicyTokens packed(
    const PaddedTokens& padded, Packing packing, at::ScalarType dtype, int64_t begin, int64_t end) {
  const int64_t count = end - begin, length = padded.mask.size(1);
  const auto mask = padded.mask.narrow(0, begin, count).flatten();
  const auto sequence = at::arange(count, at::kLong).repeat_interleave(length);
  const auto kept = packing == Packing::kMasked ? at::arange(count * length, at::kLong)
                                                : mask.nonzero().squeeze(1);
  const auto pick = [&](const at::Tensor& t) {
    if (!t.defined()) return t;
    return t.narrow(0, begin, count).flatten().index_select(0, kept).to(dtype);
  };
  return {pick(padded.log_prob),
          pick(padded.old_log_prob),
          pick(padded.ref_log_prob),
          sequence.index_select(0, kept),
          mask.index_select(0, kept),
          padded.advantage.narrow(0, begin, count)};
}

/// A loss summed over micro-batches, and its gradient put back at its place [B, T].
struct SummedLoss {
  double total = 0, kl = 0, clipped = 0, ratio_sum = 0;
  at::Tensor d_log_prob;
};

/// Over micro-batches of `per_batch` sequences each, with counts of the whole.
inline SummedLoss summed_loss(const PaddedTokens& padded,
                              const rl::PolicyLossOptions& options,
                              Packing packing = Packing::kLeftOut,
                              at::ScalarType dtype = at::kDouble,
                              int64_t per_batch = 0) {
  const int64_t sequences = padded.mask.size(0);
  const rl::LossCounts counts{sequences, padded.mask.sum().item<int64_t>()};
  SummedLoss sum;
  std::vector<at::Tensor> d_batches;
  if (per_batch == 0) per_batch = sequences;
  for (int64_t begin = 0; begin < sequences; begin += per_batch) {
    const int64_t end = std::min(sequences, begin + per_batch);
    auto tokens = packed(padded, packing, dtype, begin, end);
    tokens.log_prob.set_requires_grad(true);
    const auto loss = rl::policy_loss(tokens, options, counts);
    REQUIRE(loss.total.dim() == 0);
    REQUIRE(loss.total.scalar_type() == dtype);
    sum.total += loss.total.item<double>();
    sum.kl += loss.kl;
    sum.clipped += loss.clipped;
    sum.ratio_sum += loss.ratio_sum;
    const auto gradient = torch::autograd::grad({loss.total}, {tokens.log_prob})[0];
    REQUIRE(gradient.scalar_type() == dtype);
    const auto mask = padded.mask.narrow(0, begin, end - begin);
    const auto place = packing == Packing::kMasked ? at::ones_like(mask) : mask;
    d_batches.push_back(at::zeros(mask.sizes(), gradient.options().dtype(at::kDouble))
                            .masked_scatter(place, gradient.to(at::kDouble)));
  }
  sum.d_log_prob = at::cat(d_batches);
  return sum;
}

}  // namespace cohort::tests
