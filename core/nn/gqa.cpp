#include "core/nn/gqa.h"

#include <cmath>

#include "core/base/error.h"
#include "core/nn/attention_op.h"
#include "core/nn/decode_op.h"
#include "core/nn/rms_norm.h"
#include "core/nn/stacked.h"

namespace cohort::core {
namespace {

class Gqa final : public Attention {
 public:
  Gqa(const ModelConfig& config, const std::string& prefix, const Initializer& init)
      : prefix_(prefix),
        heads_(config.num_attention_heads),
        kv_heads_(config.num_key_value_heads),
        dim_(gqa_head_dim(config)),
        eps_(config.rms_norm_eps),
        qkv_({{prefix + "q_proj", heads_ * dim_, config.attention_bias},
              {prefix + "k_proj", kv_heads_ * dim_, config.attention_bias},
              {prefix + "v_proj", kv_heads_ * dim_, config.attention_bias}},
             config.hidden_size,
             init),
        o_({{prefix + "o_proj",
             config.hidden_size,
             config.attention_bias && config.model_type != "qwen2"}},
           heads_ * dim_,
           init) {
    if (!config.qk_norm) return;
    q_norm_ = init.ones({dim_});
    k_norm_ = init.ones({dim_});
  }

  at::Tensor forward(const at::Tensor& x,
                     const AttentionLayout& layout,
                     const RopeTable& rope) const override {
    const int64_t B = x.size(0), S = x.size(1);
    const auto [q, k, v] = project(x);
    const auto out = attention_op({q, k, {}, v}, {rope.cos, rope.sin, false}, layout, scale());
    return o_.forward(out.view({B, S, heads_ * dim_}));
  }

  at::Tensor forward_as_decoded(const at::Tensor& x,
                                const AttentionLayout& layout,
                                const RopeTable& rope) const override {
    return forward(x, layout, rope);
  }

  int64_t cache_dim() const override { return 2 * kv_heads_ * dim_; }

  at::Tensor decode(const at::Tensor& x,
                    const DecodeLayout& layout,
                    const RopeTable& rope,
                    const at::Tensor& cache) const override {
    const int64_t T = x.size(0);
    const auto [q, k, v] = project(x);
    const Rotation rotation{rope.cos, rope.sin, false};
    cache_tokens(k, rotation, layout, 0, cache);
    cache_tokens(v, {}, layout, kv_heads_ * dim_, cache);
    const auto out = decode_op(q.contiguous(),
                               rotation,
                               layout,
                               {.kv_heads = kv_heads_, .v_dim = dim_, .v_offset = kv_heads_ * dim_},
                               scale(),
                               cache);
    return o_.forward(out.view({T, heads_ * dim_}));
  }

  void collect(ParameterList& out) const override {
    qkv_.collect(out);
    if (q_norm_.defined()) {
      out.push_back(named_parameter(prefix_ + "q_norm.weight", q_norm_));
      out.push_back(named_parameter(prefix_ + "k_norm.weight", k_norm_));
    }
    o_.collect(out);
  }

 private:
  double scale() const { return 1 / std::sqrt(static_cast<double>(dim_)); }

  struct Projected {
    at::Tensor q, k, v;  ///< [..., heads, dim], normed where the model does.
  };
  Projected project(const at::Tensor& x) const {
    const auto parts = at::split_with_sizes(
        qkv_.forward(x), {heads_ * dim_, kv_heads_ * dim_, kv_heads_ * dim_}, -1);
    auto q = parts[0].unflatten(-1, {heads_, dim_});
    auto k = parts[1].unflatten(-1, {kv_heads_, dim_});
    if (q_norm_.defined()) {
      q = rms_norm(q, q_norm_, eps_);
      k = rms_norm(k, k_norm_, eps_);
    }
    return {q, k, parts[2].unflatten(-1, {kv_heads_, dim_})};
  }

  std::string prefix_;
  int64_t heads_, kv_heads_, dim_;
  double eps_;
  StackedProjection qkv_, o_;
  at::Tensor q_norm_, k_norm_;
};

}  // namespace

int64_t gqa_head_dim(const ModelConfig& config) {
  if (config.head_dim > 0) return config.head_dim;
  COHORT_CHECK_INPUT(
      config.num_attention_heads > 0 && config.hidden_size % config.num_attention_heads == 0,
      "model.head_dim: not given, and num_attention_heads {} does not divide hidden_size {}",
      config.num_attention_heads,
      config.hidden_size);
  return config.hidden_size / config.num_attention_heads;
}

std::unique_ptr<Attention> make_gqa(const ModelConfig& config,
                                    const std::string& prefix,
                                    const Initializer& init) {
  COHORT_CHECK_INPUT(config.num_key_value_heads > 0 &&
                         config.num_attention_heads % config.num_key_value_heads == 0,
                     "model.num_key_value_heads: must divide num_attention_heads {}, not {}",
                     config.num_attention_heads,
                     config.num_key_value_heads);
  COHORT_CHECK_INPUT(gqa_head_dim(config) % 2 == 0,
                     "model.head_dim: must be even to rotate, not {}",
                     gqa_head_dim(config));
  return std::make_unique<Gqa>(config, prefix, init);
}

}  // namespace cohort::core
