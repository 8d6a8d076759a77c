// From YAML and command-line overrides to a checked Config, and back. The keys stand in one table,
// core/config/fields.cpp; how keys must fit together, in core/config/validate.h.
#pragma once
#include <string>
#include <vector>

#include "core/config/config.h"

namespace cohort::core {

/// Reads `path`, applies `overrides` ("train.steps=500", later ones win; the value is YAML, so
/// "data.train=[{path: x, weight: 2}]" and "data.train.0.path=x" work) and checks everything that
/// can be checked without ranks or data files. Throws InputError with one line: file, line and key
/// (or the override), what is wrong and what would be right (for an unknown key, the nearest known
/// one).
///
/// `model:` takes the names of Hugging Face's config.json, their aliases included (rope_scaling,
/// rope_theta, num_experts, ...). Keys that are left out have the defaults of config.h with three
/// exceptions: what `model_type` fixes (fix_model_type) follows it, num_key_value_heads is
/// num_attention_heads, and seq_len is at most max_position_embeddings. `model.from: PATH` starts
/// from the config.json at PATH (or in that folder; relative to the working directory) instead; so
/// does `run.model: DIR` where model.from is not given. Overrides may name a part:
/// data.train.0.path, rl.task.count, rl.rewards.0.weight.
Config parse_config(const std::string& path, const std::vector<std::string>& overrides);
/// The same for text; `name` stands for the file in messages.
Config parse_config_text(const std::string& text,
                         const std::string& name,
                         const std::vector<std::string>& overrides);

/// Every key with its value, in the order of config.h; parsing it gives the same Config, bit for
/// bit.
std::string to_yaml(const Config& config);

/// For --help: every key in one line with its default, its meaning and unit, and what it takes.
std::string config_reference();

}  // namespace cohort::core
