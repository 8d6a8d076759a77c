// Every tensor of a model by name and shape, from its config alone: what a folder of weights has to
// hold, before anything is allocated.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/config/config.h"

namespace cohort::moe {

struct TensorSpec {
  std::string name;  ///< Hugging Face's.
  std::vector<int64_t> shape;
  bool is_router_bias = false;  ///< e_score_correction_bias: stays in fp32 in a bf16 model.
};

/// Calls `visit` for each tensor, layer by layer, those of multi-token-prediction modules and the
/// head last, until it returns false. The same tensors as a Transformer's parameters and buffers on
/// one rank.
void for_each_tensor(const core::ModelConfig& config,
                     const std::function<bool(const TensorSpec&)>& visit);

/// A tensor that a folder may hold beside these: a copy of another one.
struct TensorCopy {
  std::string name, of;
};
/// lm_head of tied embeddings; embedding and head in the prediction modules, as the released
/// DeepSeek-V3 checkpoints have them.
std::vector<TensorCopy> possible_copies(const core::ModelConfig& config);

}  // namespace cohort::moe
