#include "rl/perplexity.h"

#include <cmath>

#include "core/base/error.h"
#include "rl/log_likelihood.h"
#include "rl/white_space.h"

namespace cohort::rl {

double Perplexity::token_perplexity() const {
  return std::exp(-log_likelihood / static_cast<double>(tokens));
}
double Perplexity::word_perplexity() const {
  return std::exp(-log_likelihood / static_cast<double>(words));
}
double Perplexity::byte_perplexity() const {
  return std::exp(-log_likelihood / static_cast<double>(bytes));
}
double Perplexity::bits_per_byte() const {
  return -log_likelihood / static_cast<double>(bytes) / std::log(2.0);
}

int32_t prefix_token(const core::ModelConfig& config) {
  const int64_t token = config.bos_token_id >= 0 ? config.bos_token_id : config.eos_token_id;
  COHORT_CHECK_INPUT(token >= 0 && token < config.vocab_size,
                     "config.json: bos_token_id is {} and eos_token_id {}; want one of them below "
                     "the vocab_size {}, to stand before a text whose first token is scored",
                     config.bos_token_id,
                     config.eos_token_id,
                     config.vocab_size);
  return static_cast<int32_t>(token);
}

Perplexity perplexity(moe::Transformer& model,
                      const distributed::Mesh& mesh,
                      const core::Tokenizer& tokenizer,
                      std::span<const std::string> documents,
                      const PerplexityOptions& options) {
  const int64_t longest = model.config().max_position_embeddings;
  Perplexity out;
  out.window = options.window > 0 ? options.window : longest;
  COHORT_CHECK_INPUT(out.window <= longest,
                     "a window of {} tokens exceeds the model's {} positions; want a smaller one",
                     out.window,
                     longest);
  out.stride = options.stride > 0 ? options.stride : out.window;
  COHORT_CHECK_INPUT(out.stride <= out.window,
                     "a stride of {} tokens would leave out some between windows of {}; want a "
                     "stride of at most the window",
                     out.stride,
                     out.window);
  const int32_t prefix = prefix_token(model.config());
  std::vector<LikelihoodRequest> requests;
  for (const std::string& text : documents) {
    const std::vector<int32_t> tokens = tokenizer.encode(text);
    for (auto& request : rolling_windows(tokens, prefix, out.window, out.stride))
      requests.push_back(std::move(request));
    out.documents += 1;
    out.tokens += static_cast<int64_t>(tokens.size());
    out.words += count_words(text);
    out.bytes += static_cast<int64_t>(text.size());
  }
  COHORT_CHECK_INPUT(out.tokens > 0,
                     "perplexity: {} documents hold no token to predict; want some text",
                     out.documents);
  for (const Likelihood& one : log_likelihoods(model, mesh, requests, out.window))
    out.log_likelihood += one.log_prob;
  return out;
}

nlohmann::ordered_json perplexity_json(const Perplexity& perplexity) {
  return {{"documents", perplexity.documents},
          {"tokens", perplexity.tokens},
          {"words", perplexity.words},
          {"bytes", perplexity.bytes},
          {"log_likelihood", perplexity.log_likelihood},
          {"token_perplexity", perplexity.token_perplexity()},
          {"word_perplexity", perplexity.word_perplexity()},
          {"byte_perplexity", perplexity.byte_perplexity()},
          {"bits_per_byte", perplexity.bits_per_byte()},
          {"window", perplexity.window},
          {"stride", perplexity.stride}};
}

}  // namespace cohort::rl
