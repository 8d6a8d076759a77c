// A GRPO run from its config to its last checkpoint (arXiv:2402.03300, arXiv:2501.12948).
//
//   prompts -> rollout -> rewards -> advantages -> updates -> log, evaluation, checkpoint
//
// Completions are drawn with the very weights that are trained, so there is nothing to synchronise;
// each step measures that sampling and training agree (logp_drift_max, routing_mismatch). metrics
// of a step, beside those of pretraining:
//
//   reward_mean, reward/<label>   means over all completions drawn, each component without its
//   weight reward_failures               completions of this step that a reward could not score
//   pass_rate                     share of completions whose first reward is at least 1
//   completion_tokens_mean, truncated_fraction
//   kl                            mean k3 to the reference a token; 0 while rl.beta is 0
//   entropy                       nats a token, of the distribution sampled from
//   clip_fraction                 tokens whose ratio was clipped, over all updates of the step
//   logp_drift_max, routing_mismatch, routing_mismatch_pairs
//                                 between sampling and the first update: largest difference of a
//                                 log-probability, (token, layer) pairs routed otherwise: share,
//                                 count
//   degenerate_groups             share of the groups drawn whose rewards are all equal
//   prefix_hit_tokens             prompt tokens that samples found in the cache
//   generate_tokens_per_second, generate_seconds, reward_seconds, train_seconds
//                                 seconds of the slowest rank
//   tokens                        completion tokens drawn so far
//   eval_pass_at_1, eval_reward_mean, eval_problems, eval_seconds
//                                 on evaluation steps, before the first step (step 0) and at the
//                                 end
#pragma once
#include "core/config/config.h"

namespace cohort::rl {

/// Collective over all ranks of the job. Starts from the weights and the tokenizer of run.model, or
/// goes on from the newest good checkpoint of run.dir (`resume`), bit for bit on the same mesh.
/// Throws InputError for what the user can put right.
void grpo(const core::Config& config, bool resume);

}  // namespace cohort::rl
