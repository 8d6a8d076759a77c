// Grouped-query attention (arXiv:2305.13245) as Qwen2 and Qwen3 have it: query, key and value of
// one head size, rotation of the whole head in halves, RMSNorm on each head of q and k with
// config.qk_norm.
//
// q_proj, k_proj and v_proj are one stacked parameter and one product. config.attention_bias puts
// biases on them, and, except in qwen2, on o_proj, as Hugging Face does.
#pragma once
#include "core/nn/attention.h"

namespace cohort::core {

/// Throws InputError when the heads of `config` make no GQA.
std::unique_ptr<Attention> make_gqa(const ModelConfig& config,
                                    const std::string& prefix,
                                    const Initializer& init);

/// config.head_dim, or hidden_size / num_attention_heads where that is 0.
int64_t gqa_head_dim(const ModelConfig& config);

}  // namespace cohort::core
