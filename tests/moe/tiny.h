// A model small enough to run in milliseconds that still has every part: dense and MoE layers, groups,
// shared experts, query LoRA, two prediction modules.
#pragma once
#include <string>

#include "core/base/rng.h"
#include "core/config/config.h"
#include "core/data/batch.h"
#include "distributed/mesh.h"

namespace cohort::tests {

inline core::ModelConfig tiny_model() {
  core::ModelConfig c;
  c.vocab_size = 61;
  c.hidden_size = 16;
  c.intermediate_size = 24;
  c.moe_intermediate_size = 12;
  c.num_hidden_layers = 3;
  c.num_attention_heads = c.num_key_value_heads = 2;
  c.n_routed_experts = 8;
  c.n_shared_experts = 1;
  c.num_experts_per_tok = 2;
  c.n_group = 4;
  c.topk_group = 2;
  c.routed_scaling_factor = 1.5;
  c.q_lora_rank = 10;
  c.kv_lora_rank = 8;
  c.qk_nope_head_dim = 6;
  c.qk_rope_head_dim = 4;
  c.v_head_dim = 6;
  c.num_nextn_predict_layers = 2;
  c.initializer_range = 0.2;
  return c;
}

/// Rows of random tokens, each cut into documents of random lengths.
inline core::Batch random_rows(uint64_t seed, int64_t rows, int64_t seq_len, int64_t vocab_size) {
  core::Batch batch{at::empty({rows, seq_len + 1}, at::kLong), at::empty({rows, seq_len + 1}, at::kLong)};
  int64_t* token = batch.tokens.data_ptr<int64_t>();
  int64_t* document = batch.document_id.data_ptr<int64_t>();
  for (int64_t i = 0; i < batch.tokens.numel(); ++i) {
    token[i] = static_cast<int64_t>(core::random_bits(seed, 1, i) % vocab_size);
    const bool starts_row = i % (seq_len + 1) == 0;
    document[i] = starts_row ? 0 : document[i - 1] + (core::random_bits(seed, 2, i) % 9 == 0);
  }
  return batch;
}

/// The same rows in pieces of `micro_batch`: those of rank `rank` of `ranks`.
inline std::vector<core::Batch> share_of(const core::Batch& all, int rank, int ranks, int64_t micro_batch) {
  const int64_t count = all.num_rows() / ranks;
  std::vector<core::Batch> out;
  for (int64_t i = rank * count; i < (rank + 1) * count; i += micro_batch)
    out.push_back({all.tokens.narrow(0, i, micro_batch), all.document_id.narrow(0, i, micro_batch)});
  return out;
}

}  // namespace cohort::tests
