// Rejection sampling, from a config to a file of examples: the third stage of DeepSeek-R1
// (arXiv:2501.12948, section 2.3.3), and what its distilled students learn from.
//
//   problems of rl.task -> completions by run.model -> rl.rewards -> choose -> JSONL for cohort sft
//
// A line of sample.out, in the order of problems and of their samples:
//
//   prompt, completion   texts; the end token is not in the completion
//   problem, sample      id of the problem, which of its completions
//   reward, rewards      the weighted sum; each rule's value before its weight, by label
//   tokens, truncated    of the completion, the end token included; cut by max_new_tokens
//   seed, sample_seed    run.seed; what this completion was drawn with
//   model, weights       the folder, and a hash of what is in it
//   config               a hash of task, problems, rewards, sampling, seed and sample section
//   teacher              with sample.top_logprobs: rl/teacher.h
//
// A completion is a function of the weights, the prompt and its seed, and the seed one of
// (run.seed, problem, sample): in fp32 the file is the same, byte for byte, on any mesh and however
// often the job was killed and started again.
#pragma once
#include <nlohmann/json.hpp>

#include "core/config/config.h"

namespace cohort::rl {

/// Collective over all ranks of the job. Goes on where an earlier call with the same settings and
/// weights was stopped, and draws nothing when that came to its end. Returns the summary, which
/// also stands beside the file (sample_parts.h): out, model, weights, config, result, and what
/// sample_counts.h says. `overwrite`: begins anew. Throws InputError for what the user can put
/// right.
nlohmann::ordered_json sample(const core::Config& config, bool overwrite);

}  // namespace cohort::rl
