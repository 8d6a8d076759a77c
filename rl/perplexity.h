// How well a model predicts documents: rolling log-likelihood and what lm-evaluation-harness makes
// of it (word_perplexity, byte_perplexity, bits_per_byte).
#pragma once
#include <nlohmann/json.hpp>
#include <span>
#include <string>

#include "core/tokenizer/tokenizer.h"
#include "distributed/mesh.h"
#include "moe/transformer.h"

namespace cohort::rl {

struct PerplexityOptions {
  int64_t window = 0;  ///< Tokens a prediction sees at most; 0: max_position_embeddings.
  int64_t stride = 0;  ///< Tokens that a window predicts anew, 1 .. window; 0: window. Smaller
                       ///< gives each token more context and takes window / stride as many passes.
};

struct Perplexity {
  int64_t documents = 0, tokens = 0, words = 0, bytes = 0;
  double log_likelihood = 0;  ///< Nats over all documents.
  int64_t window = 0, stride = 0;

  /// exp of the mean nats a token, a word (runs of white space cut), a byte of UTF-8.
  double token_perplexity() const;
  double word_perplexity() const;
  double byte_perplexity() const;
  double bits_per_byte() const;
};

/// The token that stands before a text: the begin token, else the end token. InputError for a model
/// without either.
int32_t prefix_token(const core::ModelConfig& config);

/// Every document is predicted on its own behind the prefix token. The same figures on any mesh
/// (see log_likelihood.h). InputError when there is no token to predict, or for a window beyond the
/// model's positions or a stride beyond the window. Collective over dp.
Perplexity perplexity(moe::Transformer& model,
                      const distributed::Mesh& mesh,
                      const core::Tokenizer& tokenizer,
                      std::span<const std::string> documents,
                      const PerplexityOptions& options);

/// documents, tokens, words, bytes, log_likelihood, token_perplexity, word_perplexity,
/// byte_perplexity, bits_per_byte, window, stride. A figure beyond the range of fp64 is null.
nlohmann::ordered_json perplexity_json(const Perplexity& perplexity);

}  // namespace cohort::rl
