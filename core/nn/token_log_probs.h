// Log-probabilities of given tokens under softmax(x head^T / temperature), and the entropy of that
// distribution, without holding [tokens, vocab].
#pragma once
#include <ATen/ATen.h>

namespace cohort::core {

struct TokenLogProbs {
  at::Tensor log_prob;  ///< [T], fp32 (fp64 for fp64 inputs); differentiable.
  at::Tensor entropy;   ///< [T], nats, likewise; no gradient.
};

/// x [T, D], head [V, D] of one dtype, target int64 [T] in 0 .. V - 1, temperature > 0. Logits are
/// taken in chunks of tokens, in forward and once more in backward, where the gradient of each
/// token is known: d logits = d log_prob (onehot - p) / temperature. Differentiable in x and head;
/// what needs no gradient costs none, nor does a token whose d log_prob is 0. No second derivative.
/// T may be 0. In fp32 on the own GEMM (core/nn/linear.h) a token's values have the same bits
/// whatever other tokens are given, and the bits that kernels::token_log_probs gives on the row of
/// core::linear(x, head), rounded to fp32. bf16: logits are rounded to bf16, as at::linear does;
/// the softmax and d head are kept in fp32. Throws Error for shapes that do not fit, targets out of
/// range and a temperature that is not positive.
TokenLogProbs token_log_probs(const at::Tensor& x,
                              const at::Tensor& head,
                              const at::Tensor& target,
                              double temperature);

/// How likely tokens are, for scoring texts.
struct TokenScores {
  at::Tensor log_prob;   ///< fp64 [T] on the CPU, nats.
  at::Tensor likeliest;  ///< bool [T] on the CPU: whether no token is likelier than the target.
};

/// token_log_probs at temperature 1, without a graph and without the entropy; `head` may be
/// quantised (core/nn/quantized.h). T may be 0. Throws as token_log_probs does.
TokenScores score_tokens(const at::Tensor& x, const at::Tensor& head, const at::Tensor& target);

}  // namespace cohort::core
