// Sampled sequences of any lengths, laid end to end in one row for one forward pass: no padding.
#pragma once
#include <ATen/ATen.h>

#include <span>
#include <vector>

#include "core/nn/attention.h"
#include "core/nn/token_log_probs.h"
#include "moe/transformer.h"
#include "rl/generator.h"
#include "rl/policy_loss.h"

namespace cohort::rl {

/// One completion to learn from.
struct PolicySequence {
  std::span<const int32_t> prompt;  ///< At least one token.
  const Generated* generated;       ///< At least one token.
  double advantage = 0;
  bool counts = true;  ///< false: its tokens are masked; it is still one of the sequences.

  int64_t tokens() const { return static_cast<int64_t>(generated->tokens.size()); }
};

/// A row of T tokens: of each sequence the prompt and the completion without its last token, which
/// nothing is predicted from. n completion tokens in all.
struct PolicyBatch {
  at::Tensor input_ids;          ///< int64 [1, T]
  core::AttentionLayout layout;  ///< A run a sequence, each at position 0.
  at::Tensor row;                ///< int64 [n]: place in the row from which a token is predicted.
  at::Tensor target;             ///< int64 [n]
  at::Tensor old_log_prob;       ///< fp32 [n], at sampling.
  at::Tensor ref_log_prob;       ///< [n]; undefined without a reference model.
  at::Tensor sequence;           ///< int64 [n], ascending from 0.
  at::Tensor mask;               ///< bool [n]
  at::Tensor advantage;          ///< fp64 [sequences]
  at::Tensor expert_TLK;         ///< int16 [T, MoE layers, K]; undefined where none were recorded.
};

PolicyBatch pack(std::span<const PolicySequence> sequences);

/// Log-probabilities of a batch's tokens under `model`, those on the CPU, their entropy where the
/// model is. Collective over its ep axis; differentiable.
core::TokenLogProbs log_probs(moe::Transformer& model,
                              const PolicyBatch& batch,
                              const moe::PassOptions& pass,
                              double temperature);

/// What policy_loss reads of a batch, with these log-probabilities.
PolicyTokens policy_tokens(const PolicyBatch& batch, const at::Tensor& log_prob);

}  // namespace cohort::rl
