#include "core/nn/mla.h"

#include <cmath>

#include "core/base/error.h"
#include "core/nn/attention_op.h"
#include "core/nn/decode_op.h"
#include "core/nn/head_linear.h"
#include "core/nn/linear.h"
#include "core/nn/rms_norm.h"
#include "core/nn/stacked.h"

namespace cohort::core {
namespace {

class Mla final : public Attention {
 public:
  Mla(const ModelConfig& config, const std::string& prefix, const Initializer& init)
      : config_(config),
        prefix_(prefix),
        qk_dim_(config.qk_nope_head_dim + config.qk_rope_head_dim),
        q_out_(config.num_attention_heads * qk_dim_),
        from_x_(
            {has_q_lora()
                 ? ProjectionPart{prefix + "q_a_proj", config.q_lora_rank, config.attention_bias}
                 : ProjectionPart{prefix + "q_proj", q_out_, false},
             {prefix + "kv_a_proj_with_mqa",
              config.kv_lora_rank + config.qk_rope_head_dim,
              config.attention_bias}},
            config.hidden_size,
            init),
        kv_a_norm_(init.ones({config.kv_lora_rank})),
        kv_b_(
            init.normal(prefix + "kv_b_proj.weight",
                        {config.num_attention_heads * (config.qk_nope_head_dim + config.v_head_dim),
                         config.kv_lora_rank})),
        o_({{prefix + "o_proj", config.hidden_size, config.attention_bias}},
           config.num_attention_heads * config.v_head_dim,
           init) {
    if (!has_q_lora()) return;
    q_a_norm_ = init.ones({config.q_lora_rank});
    q_b_ = init.normal(prefix + "q_b_proj.weight", {q_out_, config.q_lora_rank});
  }

  at::Tensor forward(const at::Tensor& x,
                     const AttentionLayout& layout,
                     const RopeTable& rope) const override {
    const int64_t B = x.size(0), S = x.size(1), H = config_.num_attention_heads;
    const auto [q, latent, k_rope] = project(x);
    const auto kv = core::linear(latent, kv_b_);
    // Sizes in full: a rank may have no token at a depth of prediction.
    const int64_t kv_dim = config_.qk_nope_head_dim + config_.v_head_dim;
    const auto out =
        attention_op({q.view({B, S, H, qk_dim_}), kv.view({B, S, H, kv_dim}), k_rope, {}},
                     {rope.cos, rope.sin, config_.rope_interleave},
                     layout,
                     scale(rope));
    return o_.forward(out.view({B, S, H * config_.v_head_dim}));
  }

  at::Tensor forward_as_decoded(const at::Tensor& x,
                                const AttentionLayout& layout,
                                const RopeTable& rope) const override {
    const int64_t B = x.size(0), S = x.size(1), H = config_.num_attention_heads;
    const auto [q, latent, k_rope] = project(x);
    const auto keys = latent.view({B, S, 1, config_.kv_lora_rank});
    const auto q_absorbed = absorb(q.view({B * S, H, qk_dim_}));
    const auto out = attention_op({q_absorbed.view({B, S, H, cache_dim()}), keys, k_rope, keys},
                                  {rope.cos, rope.sin, config_.rope_interleave},
                                  layout,
                                  scale(rope));
    const auto values = from_latent(out.view({B * S, H, config_.kv_lora_rank}));
    return o_.forward(values.view({B, S, H * config_.v_head_dim}));
  }

  int64_t cache_dim() const override { return config_.kv_lora_rank + config_.qk_rope_head_dim; }

  at::Tensor decode(const at::Tensor& x,
                    const DecodeLayout& layout,
                    const RopeTable& rope,
                    const at::Tensor& cache) const override {
    const int64_t T = x.size(0), H = config_.num_attention_heads, R = config_.kv_lora_rank;
    const auto [q, latent, k_rope] = project(x);
    const Rotation rotation{rope.cos, rope.sin, config_.rope_interleave};
    cache_tokens(latent.view({T, 1, R}), {}, layout, 0, cache);
    cache_tokens(k_rope.unsqueeze(1), rotation, layout, R, cache);
    const auto out = decode_op(absorb(q.view({T, H, qk_dim_})),
                               rotation,
                               layout,
                               {.kv_heads = 1, .v_dim = R, .v_offset = 0},
                               scale(rope),
                               cache);
    return o_.forward(from_latent(out).view({T, H * config_.v_head_dim}));
  }

  void collect(ParameterList& out) const override {
    from_x_.collect(out);
    if (has_q_lora()) {
      out.push_back(named_parameter(prefix_ + "q_a_layernorm.weight", q_a_norm_));
      out.push_back(named_parameter(prefix_ + "q_b_proj.weight", q_b_));
    }
    out.push_back(named_parameter(prefix_ + "kv_a_layernorm.weight", kv_a_norm_));
    out.push_back(named_parameter(prefix_ + "kv_b_proj.weight", kv_b_));
    o_.collect(out);
  }

 private:
  /// Hugging Face's DeepseekV3Attention leaves its two norms at their default, whatever
  /// rms_norm_eps is.
  static constexpr double kNormEps = 1e-6;

  double scale(const RopeTable& rope) const {
    return rope.softmax_factor / std::sqrt(static_cast<double>(qk_dim_));
  }

  struct Projected {
    at::Tensor q, latent, k_rope;  ///< [..., H qk_dim], [..., R] after its norm, [..., rope].
  };
  Projected project(const at::Tensor& x) const {
    const auto parts = at::split_with_sizes(from_x_.forward(x),
                                            {has_q_lora() ? config_.q_lora_rank : q_out_,
                                             config_.kv_lora_rank,
                                             config_.qk_rope_head_dim},
                                            -1);
    auto q = parts[0];
    if (has_q_lora()) q = core::linear(rms_norm(q, q_a_norm_, kNormEps), q_b_);
    return {q, rms_norm(parts[1], kv_a_norm_, kNormEps), parts[2]};
  }

  /// Rows of kv_b_proj of each head: keys [H, nope, R] or values [H, v, R].
  at::Tensor key_weight() const {
    return kv_b_.view({config_.num_attention_heads, -1, config_.kv_lora_rank})
        .narrow(1, 0, config_.qk_nope_head_dim);
  }
  at::Tensor value_weight() const {
    return kv_b_.view({config_.num_attention_heads, -1, config_.kv_lora_rank})
        .narrow(1, config_.qk_nope_head_dim, config_.v_head_dim);
  }
  /// q [T, H, nope + rope] -> [T, H, R + rope]: q^C W^UK in place of q^C.
  at::Tensor absorb(const at::Tensor& q) const {
    const int64_t nope = config_.qk_nope_head_dim;
    return at::cat({head_linear(q.narrow(2, 0, nope), key_weight(), false),
                    q.narrow(2, nope, config_.qk_rope_head_dim)},
                   2);
  }
  /// [T, H, R] -> [T, H, v]: the weighted sum of latents through W^UV.
  at::Tensor from_latent(const at::Tensor& sums) const {
    return head_linear(sums, value_weight(), true);
  }

  bool has_q_lora() const { return config_.q_lora_rank > 0; }

  ModelConfig config_;
  std::string prefix_;
  int64_t qk_dim_, q_out_;
  StackedProjection from_x_;  ///< q_proj or q_a_proj, then kv_a_proj_with_mqa.
  at::Tensor q_a_norm_, q_b_, kv_a_norm_, kv_b_;
  StackedProjection o_;
};

}  // namespace

std::unique_ptr<Attention> make_mla(const ModelConfig& config,
                                    const std::string& prefix,
                                    const Initializer& init) {
  COHORT_CHECK_INPUT(
      config.num_attention_heads > 0 && config.qk_nope_head_dim >= 0 &&
          config.qk_rope_head_dim > 0 && config.qk_rope_head_dim % 2 == 0 &&
          config.v_head_dim > 0 && config.q_lora_rank >= 0,
      "model: MLA needs num_attention_heads, v_head_dim > 0, an even "
      "qk_rope_head_dim > 0 and qk_nope_head_dim, q_lora_rank >= 0, not {}, {}, {}, {}, {}",
      config.num_attention_heads,
      config.v_head_dim,
      config.qk_rope_head_dim,
      config.qk_nope_head_dim,
      config.q_lora_rank);
  return std::make_unique<Mla>(config, prefix, init);
}

}  // namespace cohort::core
