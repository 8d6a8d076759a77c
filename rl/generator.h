// Drawing completions with the very weights that are being trained: batched decoding over a cache
// of keys and values in blocks.
//
// MLA caches the compressed latent and the rotated rope key of a token, [kv_lora_rank +
// qk_rope_head_dim], and decodes in the absorbed form of attention; GQA caches rotated keys and
// values. A prompt is computed once for all of its samples, which share its blocks. A finished
// sample's place goes to the next one waiting. A sequence reserves what it may come to need when it
// is admitted, so the cache never overflows.
//
// In fp32, logits of a token are the same bits whatever else decodes with it, and the same as those
// of Transformer::forward with PassOptions::absorbed (docs/architecture.md says what makes it so).
#pragma once
#include <ATen/ATen.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/config/config.h"
#include "core/tokenizer/tokenizer.h"
#include "distributed/communicator.h"
#include "moe/transformer.h"

namespace cohort::rl {

/// A prompt and how often to complete it.
struct GenerationRequest {
  std::vector<int32_t> prompt;  ///< At least one token; the begin token, if wanted, is in it.
  std::vector<uint64_t> seeds;  ///< One a sample. A sample is a function of the weights, the
                                ///< prompt, its seed and the sampling options.
};

enum class StopReason { kEndToken, kStopText, kLength };

struct Generated {
  std::vector<int32_t> tokens;  ///< Without the prompt, the end token included.
  std::vector<float>
      log_prob;  ///< Of each token: log softmax(logits / temperature), whatever top_k,
                 ///< top_p and min_p left out; at temperature 0, of the logits.
  std::vector<float> entropy;  ///< Of the same distribution, nats.
  /// int16 [prompt + tokens - 1, MoE layers, K]: the experts of every token that was an input.
  /// Undefined when the model has no MoE layer or routing was not asked for.
  at::Tensor experts;
  /// [tokens, top_log_probs]: the likeliest tokens in place of each, the likeliest first, and log
  /// softmax(logits) of them, whatever the temperature. Empty unless asked for.
  std::vector<int32_t> top_tokens;
  std::vector<float> top_log_prob;
  StopReason stop = StopReason::kLength;
};

struct GeneratorOptions {
  int64_t max_running = 256;  ///< Sequences that decode at once.
  int64_t cache_tokens = 0;   ///< Capacity in tokens; 0: max_running of the longest ones.
  bool record_experts = false;
  int64_t top_log_probs = 0;  ///< How many likeliest tokens to record; at most the vocabulary.
};

struct GeneratorCounters {
  int64_t prompt_tokens = 0;      ///< Computed.
  int64_t prefix_hit_tokens = 0;  ///< Prompt tokens that a sample found in the cache.
  int64_t generated_tokens = 0;
  int64_t passes = 0;        ///< Forward passes.
  int64_t peak_blocks = 0;   ///< Most cache blocks in use.
  int64_t total_blocks = 0;  ///< Cache blocks there are.
  double seconds = 0;
};

/// Tells of each token as it is drawn: request, sample, token. For streaming.
using OnToken = std::function<void(int64_t request, int64_t sample, int32_t token)>;

class Generator {
 public:
  /// `ep`: the axis that shares the experts of `model`; its ranks generate in lockstep. `tokenizer`
  /// may be null when no stop text is used. Both outlive the generator.
  Generator(moe::Transformer& model,
            const core::Tokenizer* tokenizer,
            std::shared_ptr<distributed::Communicator> ep,
            const GeneratorOptions& options);
  ~Generator();

  /// [request][sample]. Weights are read as they are now. Throws InputError when a prompt is empty,
  /// or with max_new_tokens exceeds max_position_embeddings or the cache. Collective over ep (a
  /// rank may come without requests); errors are the same on all of its ranks.
  std::vector<std::vector<Generated>> generate(const std::vector<GenerationRequest>& requests,
                                               const core::SamplingConfig& sampling,
                                               const OnToken& on_token = {});

  /// Since the generator was made.
  const GeneratorCounters& counters() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Generator::generate with the sampling options of whoever hands it on; tests hand on other
/// things.
using Generate =
    std::function<std::vector<std::vector<Generated>>(const std::vector<GenerationRequest>&)>;

}  // namespace cohort::rl
