// Hugging Face's config.json <-> ModelConfig.
#pragma once
#include <array>
#include <nlohmann/json.hpp>
#include <string>

#include "core/config/config.h"

namespace cohort::core {

/// deepseek_v3, qwen2, qwen3, qwen3_moe, as transformers 4 and 5 write them. A field that is absent
/// has the default of transformers 5; vocab_size, the widths and the numbers of layers and heads
/// must be there. Of several eos tokens the first is eos_token_id. `where` (a path) stands in
/// messages. Throws InputError for another architecture, a missing or mistyped field, or a feature
/// that Cohort does not compute (an activation other than silu, sliding windows that are on, ...),
/// naming the field.
ModelConfig model_config_from_hf(const nlohmann::json& json, const std::string& where);

/// The same for a file, or for the config.json in a folder: there the end tokens of
/// generation_config.json count too, if there is one.
ModelConfig read_hf_config(const std::string& path);

/// What transformers 4 and 5 read back as the same model (without dtype: the writer of the weights
/// adds it). A dense deepseek_v3 model is one whose layers all come before first_k_dense_replace.
/// The two mtp_* fields, which transformers lacks, are added when they matter. Throws InputError
/// when `config` is not a model that config.json can say.
nlohmann::ordered_json model_config_to_hf(const ModelConfig& config);

/// Rows and columns of the blocks of F8_E4M3 weights that share one scale, from
/// quantization_config; 128 x 128 where it does not say. Throws InputError for another quantisation
/// than that of the released DeepSeek-V3 checkpoints (quant_method fp8, fmt e4m3).
std::array<int64_t, 2> fp8_block_from_hf(const nlohmann::json& json, const std::string& where);

}  // namespace cohort::core
