// How likely a model holds a text to be, given what stands before it: the quantities of
// EleutherAI's lm-evaluation-harness (arXiv:2405.14782, section 2), computed as its 0.4 does for
// causal models.
//
// Requests are cut into passes by their order alone and the passes dealt to the ranks of dp, so a
// result is the same on every mesh: to the bit where the experts of a layer are not spread or the
// products are those of Cohort's GEMM (core/nn/linear.h), else to rounding.
#pragma once
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "core/tokenizer/tokenizer.h"
#include "distributed/mesh.h"
#include "moe/transformer.h"

namespace cohort::rl {

/// Tokens to score behind tokens that are given; neither is empty.
struct LikelihoodRequest {
  std::vector<int32_t> context, continuation;
};

struct Likelihood {
  double log_prob = 0;     ///< Nats, summed over the continuation.
  bool likeliest = false;  ///< Greedy decoding from the context would write this continuation.
};

/// White space at the end of the context moves to the continuation; the continuation's tokens are
/// those of the joined text behind as many as the context alone has. `prefix_token` stands for a
/// context without tokens, and before any other too where `always_prefix`. The continuation comes
/// out empty where the joined text has no token more than the context.
LikelihoodRequest likelihood_request(const core::Tokenizer& tokenizer,
                                     std::string_view context,
                                     std::string_view continuation,
                                     int32_t prefix_token,
                                     bool always_prefix);

/// A text's tokens in windows that predict each token once. The first reads the prefix token and
/// predicts up to `window` tokens; each later one predicts `stride` tokens (1 .. window), seen from
/// the `window` tokens before its last. stride = window is what the harness does.
std::vector<LikelihoodRequest> rolling_windows(std::span<const int32_t> tokens,
                                               int32_t prefix_token,
                                               int64_t window,
                                               int64_t stride);

/// One for each request, on every rank the same. Of a request longer than `window` + 1 tokens the
/// last window + 1 count; its continuation must have at most `window`. Logits are taken in chunks:
/// [tokens, vocab] is never held. Collective over dp.
std::vector<Likelihood> log_likelihoods(moe::Transformer& model,
                                        const distributed::Mesh& mesh,
                                        std::span<const LikelihoodRequest> requests,
                                        int64_t window);

}  // namespace cohort::rl
