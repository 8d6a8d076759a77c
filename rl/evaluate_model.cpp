// An evaluation by a generator of its own, with the settings of a run.
#include "rl/components.h"
#include "rl/evaluate.h"

namespace cohort::rl {

Evaluation evaluate(moe::Transformer& model,
                    const core::Tokenizer& tokenizer,
                    const distributed::Mesh& mesh,
                    const core::RlConfig& rl,
                    std::span<const Problem> problems,
                    int64_t samples,
                    uint64_t seed) {
  RewardSum rewards(reward_configs(rl.rewards));
  Generator generator(model, &tokenizer, mesh.ep, {rl.max_running, rl.cache_tokens, false});
  EvaluationOptions options;
  options.samples = samples;
  options.seed = seed;
  options.bos_token_id = model.config().bos_token_id;
  return evaluate(options, problems, tokenizer, rewards, *mesh.dp, [&](const auto& requests) {
    return generator.generate(requests, rl.sampling);
  });
}

}  // namespace cohort::rl
