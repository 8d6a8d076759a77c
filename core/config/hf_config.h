// Hugging Face's config.json <-> ModelConfig.
#pragma once
#include "core/config/config.h"

#include <nlohmann/json.hpp>
#include <string>

namespace cohort::core {

/// deepseek_v3, qwen2, qwen3, qwen3_moe. `where` (a path) stands in messages. Throws InputError for
/// another architecture, a missing or mistyped field, or a feature that Cohort does not compute (an
/// activation other than silu, sliding windows that are on, ...), naming the field.
ModelConfig model_config_from_hf(const nlohmann::json& json, const std::string& where);
/// What transformers reads back as the same model.
nlohmann::ordered_json model_config_to_hf(const ModelConfig& config);

}  // namespace cohort::core
