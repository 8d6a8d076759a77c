#include "moe/tensor_list.h"

namespace cohort::moe {
namespace {

/// Hands tensors on until the visitor has had enough.
class Walk {
 public:
  Walk(const core::ModelConfig& config, const std::function<bool(const TensorSpec&)>& visit)
      : config_(config), visit_(visit) {}

  void model() {
    const int64_t V = config_.vocab_size, D = config_.hidden_size;
    give("model.embed_tokens.weight", {V, D});
    for (int64_t i = 0; i < config_.num_hidden_layers && goes_on_; ++i) layer(i);
    give("model.norm.weight", {D});
    for (int64_t k = 0; k < config_.num_nextn_predict_layers && goes_on_; ++k)
      prediction_module(config_.num_hidden_layers + k);
    if (!config_.tie_word_embeddings) give("lm_head.weight", {V, D});
  }

 private:
  void give(const std::string& name, std::vector<int64_t> shape, bool is_router_bias = false) {
    if (goes_on_) goes_on_ = visit_({name, std::move(shape), is_router_bias});
  }

  void prediction_module(int64_t idx) {
    const std::string prefix = "model.layers." + std::to_string(idx) + ".";
    const int64_t D = config_.hidden_size;
    give(prefix + "hnorm.weight", {D});
    give(prefix + "enorm.weight", {D});
    give(prefix + "eh_proj.weight", {D, 2 * D});
    layer(idx);
    give(prefix + "shared_head.norm.weight", {D});
  }

  void layer(int64_t idx) {
    const std::string prefix = "model.layers." + std::to_string(idx) + ".";
    give(prefix + "input_layernorm.weight", {config_.hidden_size});
    config_.uses_mla() ? latent_attention(prefix + "self_attn.")
                       : grouped_attention(prefix + "self_attn.");
    give(prefix + "post_attention_layernorm.weight", {config_.hidden_size});
    if (config_.is_moe_layer(idx))
      experts(prefix + "mlp.");
    else
      mlp(prefix + "mlp.", config_.intermediate_size);
  }

  void projection(const std::string& name, int64_t out, int64_t in, bool bias) {
    give(name + ".weight", {out, in});
    if (bias) give(name + ".bias", {out});
  }

  void latent_attention(const std::string& prefix) {
    const int64_t D = config_.hidden_size, heads = config_.num_attention_heads;
    const int64_t nope = config_.qk_nope_head_dim, rope = config_.qk_rope_head_dim,
                  v = config_.v_head_dim, kv_rank = config_.kv_lora_rank,
                  q_rank = config_.q_lora_rank;
    const bool bias = config_.attention_bias;
    if (q_rank > 0) {
      projection(prefix + "q_a_proj", q_rank, D, bias);
      give(prefix + "q_a_layernorm.weight", {q_rank});
      projection(prefix + "q_b_proj", heads * (nope + rope), q_rank, false);
    } else {
      projection(prefix + "q_proj", heads * (nope + rope), D, false);
    }
    projection(prefix + "kv_a_proj_with_mqa", kv_rank + rope, D, bias);
    give(prefix + "kv_a_layernorm.weight", {kv_rank});
    projection(prefix + "kv_b_proj", heads * (nope + v), kv_rank, false);
    projection(prefix + "o_proj", D, heads * v, bias);
  }

  void grouped_attention(const std::string& prefix) {
    const int64_t D = config_.hidden_size, heads = config_.num_attention_heads;
    const int64_t dim = config_.head_dim ? config_.head_dim : D / heads;
    const int64_t kv = config_.num_key_value_heads * dim;
    const bool bias = config_.attention_bias;
    projection(prefix + "q_proj", heads * dim, D, bias);
    projection(prefix + "k_proj", kv, D, bias);
    projection(prefix + "v_proj", kv, D, bias);
    projection(prefix + "o_proj", D, heads * dim, bias && config_.model_type != "qwen2");
    if (!config_.qk_norm) return;
    give(prefix + "q_norm.weight", {dim});
    give(prefix + "k_norm.weight", {dim});
  }

  void mlp(const std::string& prefix, int64_t inner) {
    const int64_t D = config_.hidden_size;
    give(prefix + "gate_proj.weight", {inner, D});
    give(prefix + "up_proj.weight", {inner, D});
    give(prefix + "down_proj.weight", {D, inner});
  }

  void experts(const std::string& prefix) {
    const int64_t E = config_.n_routed_experts;
    give(prefix + "gate.weight", {E, config_.hidden_size});
    if (config_.scoring_func == "sigmoid") give(prefix + "gate.e_score_correction_bias", {E}, true);
    for (int64_t e = 0; e < E && goes_on_; ++e)
      mlp(prefix + "experts." + std::to_string(e) + ".", config_.moe_intermediate_size);
    if (config_.n_shared_experts > 0)
      mlp(prefix + "shared_experts.", config_.n_shared_experts * config_.moe_intermediate_size);
  }

  const core::ModelConfig& config_;
  const std::function<bool(const TensorSpec&)>& visit_;
  bool goes_on_ = true;
};

}  // namespace

void for_each_tensor(const core::ModelConfig& config,
                     const std::function<bool(const TensorSpec&)>& visit) {
  Walk(config, visit).model();
}

std::vector<TensorCopy> possible_copies(const core::ModelConfig& config) {
  const std::string embedding = "model.embed_tokens.weight",
                    head = config.tie_word_embeddings ? embedding : "lm_head.weight";
  std::vector<TensorCopy> copies;
  if (config.tie_word_embeddings) copies.push_back({"lm_head.weight", embedding});
  for (int64_t k = 0; k < config.num_nextn_predict_layers; ++k) {
    const std::string prefix = "model.layers." + std::to_string(config.num_hidden_layers + k) + ".";
    copies.push_back({prefix + "embed_tokens.weight", embedding});
    copies.push_back({prefix + "shared_head.head.weight", head});
  }
  return copies;
}

}  // namespace cohort::moe
