// Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434, eq. 9-19 and 37-47).
//
//   c^KV, k^R = W^DKV x, W^KR x       [kv_lora_rank], [qk_rope_head_dim]; one k^R for all heads
//   k^C_h, v_h = W^UK_h, W^UV_h RMSNorm(c^KV)
//   q_h = [q^C_h; RoPE(q^R_h)] from x, or through RMSNorm(W^DQ x) with q_lora_rank
//   out = W^O [softmax(q_h [k^C_h; RoPE(k^R)]^T / sqrt(nope + rope)) v_h]_h
//
// The absorbed form, for decoding and for what must agree with it bit for bit, never makes k^C and
// v_h: (q^C_h W^UK_h) meets the latents themselves, which are keys and values of all heads, and
// W^UV_h is applied to their weighted sum. A token's cache is RMSNorm(c^KV) and RoPE(k^R).
//
// The projections that read x (q_proj or q_a_proj, and kv_a_proj_with_mqa) are one stacked
// parameter and one product. config.attention_bias puts biases where Hugging Face's
// DeepseekV3Attention has them: on q_a_proj, kv_a_proj_with_mqa and o_proj.
#pragma once
#include "core/nn/attention.h"

namespace cohort::core {

/// Throws InputError when the head sizes of `config` make no MLA.
std::unique_ptr<Attention> make_mla(const ModelConfig& config,
                                    const std::string& prefix,
                                    const Initializer& init);

}  // namespace cohort::core
