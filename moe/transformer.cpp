#include "moe/transformer.h"

#include "core/base/device_branch.h"
#include "core/base/error.h"
#include "core/nn/device/attention.h"
#include "core/nn/linear.h"
#include "core/nn/quantized.h"
#include "core/nn/rms_norm.h"
#include "moe/recompute.h"

namespace cohort::moe {
namespace {

core::Parameter norm(const std::string& name, int64_t size, const core::Initializer& init) {
  return core::named_parameter(name, init.ones({size}));
}

core::Parameter matrix(const std::string& name,
                       at::IntArrayRef shape,
                       const core::Initializer& init) {
  return core::named_parameter(name, init.normal(name, shape));
}

std::string layer_prefix(int64_t layer_idx) {
  return "model.layers." + std::to_string(layer_idx) + ".";
}

}  // namespace

void RoutingReplay::settle() {
  if (!pending.defined()) return;
  mismatched += static_cast<int64_t>(core::host_value(pending));
  pending = at::Tensor();
}

DecoderLayer::DecoderLayer(const core::ModelConfig& config,
                           int64_t layer_idx,
                           const core::Initializer& init,
                           std::shared_ptr<distributed::Communicator> ep)
    : eps_(config.rms_norm_eps),
      input_norm_(
          norm(layer_prefix(layer_idx) + "input_layernorm.weight", config.hidden_size, init)),
      post_attention_norm_(norm(
          layer_prefix(layer_idx) + "post_attention_layernorm.weight", config.hidden_size, init)),
      attention_(core::make_attention(config, layer_prefix(layer_idx) + "self_attn.", init)) {
  const std::string prefix = layer_prefix(layer_idx) + "mlp.";
  if (config.is_moe_layer(layer_idx))
    moe_.emplace(config, prefix, init, std::move(ep));
  else
    mlp_.emplace(config.hidden_size, config.intermediate_size, prefix, init);
}

DecoderLayer::Output DecoderLayer::forward(const at::Tensor& x,
                                           const core::AttentionLayout& layout,
                                           const core::RopeTable& rope,
                                           RoutingMemory& memory,
                                           const PassOptions& options) {
  const at::Tensor normed = core::rms_norm(x, input_norm_.value, eps_);
  const at::Tensor attended =
      x + (options.absorbed ? attention_->forward_as_decoded(normed, layout, rope)
                            : attention_->forward(normed, layout, rope));
  Output out;
  out.x = add_mlp(attended, memory, options.count_loads, &out.sequence_loss);
  return out;
}

at::Tensor DecoderLayer::decode(const at::Tensor& x,
                                const core::DecodeLayout& layout,
                                const core::RopeTable& rope,
                                const at::Tensor& cache,
                                at::Tensor* expert_TK) {
  const at::Tensor attended =
      x + attention_->decode(core::rms_norm(x, input_norm_.value, eps_), layout, rope, cache);
  RoutingMemory memory;
  const at::Tensor out = add_mlp(attended.unsqueeze(0), memory, false, nullptr).squeeze(0);
  if (expert_TK) *expert_TK = memory.expert_TK;
  return out;
}

at::Tensor DecoderLayer::add_mlp(const at::Tensor& attended,
                                 RoutingMemory& memory,
                                 bool count_loads,
                                 at::Tensor* sequence_loss) {
  const at::Tensor normed = core::rms_norm(attended, post_attention_norm_.value, eps_);
  if (!moe_) return attended + mlp_->forward(normed);
  auto out = moe_->forward(normed, memory, count_loads);
  if (sequence_loss) *sequence_loss = out.sequence_loss;
  return attended + out.y;
}

void DecoderLayer::collect(core::ParameterList& out) const {
  out.push_back(input_norm_);
  attention_->collect(out);
  out.push_back(post_attention_norm_);
  if (mlp_) mlp_->collect(out);
  if (moe_) moe_->collect(out);
}

void DecoderLayer::collect_buffers(std::vector<core::Buffer>& out) const {
  if (moe_) moe_->collect_buffers(out);
}

Transformer::Transformer(const core::ModelConfig& config,
                         std::shared_ptr<distributed::Communicator> ep,
                         uint64_t seed,
                         at::ScalarType dtype,
                         at::Device device)
    : config_(config), dtype_(dtype), device_(device) {
  const core::Initializer init{seed, config.initializer_range, dtype, device};
  embedding_ = matrix("model.embed_tokens.weight", {config.vocab_size, config.hidden_size}, init);
  embedding_.is_embedding = true;
  for (int64_t i = 0; i < config.num_hidden_layers; ++i) layers_.emplace_back(config, i, init, ep);
  final_norm_ = norm("model.norm.weight", config.hidden_size, init);
  if (config.tie_word_embeddings) {
    head_ = embedding_;
  } else {
    head_ = matrix("lm_head.weight", {config.vocab_size, config.hidden_size}, init);
    head_.is_embedding = true;
  }
  for (int64_t k = 0; k < config.num_nextn_predict_layers; ++k)
    mtp_.push_back(make_mtp_module(config.num_hidden_layers + k, init, ep));
}

Transformer::MtpModule Transformer::make_mtp_module(
    int64_t layer_idx,
    const core::Initializer& init,
    std::shared_ptr<distributed::Communicator> ep) const {
  const std::string prefix = layer_prefix(layer_idx);
  const int64_t D = config_.hidden_size;
  return {norm(prefix + "hnorm.weight", D, init),
          norm(prefix + "enorm.weight", D, init),
          matrix(prefix + "eh_proj.weight", {D, 2 * D}, init),
          norm(prefix + "shared_head.norm.weight", D, init),
          DecoderLayer(config_, layer_idx, init, std::move(ep))};
}

const core::RopeTable& Transformer::rope_table(int64_t length) {
  if (!rope_.cos.defined() || rope_.cos.size(0) < length) {
    rope_ = core::rope_table(config_.rope,
                             core::rope_dim(config_),
                             length,
                             dtype_ == at::kDouble ? at::kDouble : at::kFloat);
    rope_.cos = rope_.cos.to(device_);
    rope_.sin = rope_.sin.to(device_);
  }
  return rope_;
}

at::Tensor Transformer::embed(const at::Tensor& ids) const {
  return core::embedding(embedding_.value, ids.to(device_, /*non_blocking=*/true));
}

core::AttentionLayout Transformer::placed(core::AttentionLayout layout) const {
  if (core::takes_device_branch(embedding_.value)) {
    layout.position = core::device::positions(layout, device_);
    layout.run_start = core::device::run_starts(layout, device_);
  }
  return layout;
}

DecoderLayer::Output Transformer::run_layer(DecoderLayer& layer,
                                            const at::Tensor& x,
                                            const core::AttentionLayout& layout,
                                            const core::RopeTable& rope,
                                            const PassOptions& options,
                                            const at::Tensor& replayed_TK) {
  auto memory = std::make_shared<RoutingMemory>();
  memory->expert_TK = replayed_TK;
  DecoderLayer::Output output;
  if (!options.recompute || !x.requires_grad()) {
    output = layer.forward(x, layout, rope, *memory, options);
  } else {
    auto out = recompute(x, [&layer, layout, rope, memory, options](const at::Tensor& input) {
      auto result = layer.forward(input, layout, rope, *memory, options);
      std::vector<at::Tensor> tensors{result.x};
      if (result.sequence_loss.defined()) tensors.push_back(result.sequence_loss);
      return tensors;
    });
    output = {out[0], out.size() > 1 ? out[1] : at::Tensor()};
  }
  if (replayed_TK.defined()) {
    options.replay->compared += replayed_TK.size(0);
    at::Tensor& pending = options.replay->pending;
    pending = pending.defined() ? pending + memory->mismatched : memory->mismatched;
    if (!core::takes_device_branch(pending)) options.replay->settle();
  }
  return output;
}

ModelOutput Transformer::forward(const at::Tensor& input_ids,
                                 const at::Tensor& document_id,
                                 const PassOptions& options) {
  ModelOutput output;
  const int64_t B = input_ids.size(0), S = input_ids.size(1);
  COHORT_CHECK(S > config_.num_nextn_predict_layers || !options.mtp,
               "rows of {} tokens are too short for {} prediction modules",
               S,
               config_.num_nextn_predict_layers);
  const core::RopeTable& rope = rope_table(S);
  const at::Tensor embedded = embed(input_ids);
  const at::Tensor x = run_layers(
      embedded, placed(core::attention_layout(B, S, document_id)), rope, options, output);
  if (options.mtp)
    run_mtp(
        embedded, document_id, config_.mtp_after_norm ? output.hidden : x, rope, options, output);
  return output;
}

ModelOutput Transformer::forward(const at::Tensor& input_ids,
                                 const core::AttentionLayout& layout,
                                 const PassOptions& options) {
  int64_t positions = 1;
  for (const auto& run : layout.runs) positions = std::max(positions, run.position + run.count);
  const core::RopeTable& rope = rope_table(positions);
  ModelOutput output;
  const at::Tensor embedded = embed(input_ids);
  const core::AttentionLayout there = placed(layout);
  const at::Tensor x = run_layers(embedded, there, rope, options, output);
  if (options.mtp)
    run_mtp(embedded, there, config_.mtp_after_norm ? output.hidden : x, rope, options, output);
  return output;
}

at::Tensor Transformer::run_layers(const at::Tensor& embedded,
                                   const core::AttentionLayout& layout,
                                   const core::RopeTable& rope,
                                   const PassOptions& options,
                                   ModelOutput& output) {
  output.sequence_loss = at::zeros(
      {},
      at::TensorOptions().dtype(dtype_ == at::kDouble ? at::kDouble : at::kFloat).device(device_));
  at::Tensor x = embedded;
  int64_t moe_layer = 0;
  for (auto& layer : layers_) {
    at::Tensor replayed_TK;
    if (options.replay && layer.moe())
      replayed_TK = options.replay->expert_TLK.select(1, moe_layer++)
                        .to(at::kLong)
                        .contiguous()
                        .to(device_, /*non_blocking=*/true);
    auto out = run_layer(layer, x, layout, rope, options, replayed_TK);
    x = out.x;
    if (out.sequence_loss.defined())
      output.sequence_loss = output.sequence_loss + out.sequence_loss;
  }
  output.hidden = core::rms_norm(x, final_norm_.value, config_.rms_norm_eps);
  return x;
}

KvCache Transformer::make_cache(int64_t rows) const {
  KvCache cache;
  const auto options =
      at::TensorOptions().dtype(dtype_ == at::kDouble ? at::kDouble : at::kFloat).device(device_);
  for (const auto& layer : layers_) {
    const int64_t dim = layer.cache_dim();
    // Zeros: what lies behind a row may be read, and must not be a trap value.
    cache.layers.push_back(at::zeros({rows * dim + core::kCachePadding}, options)
                               .narrow(0, 0, rows * dim)
                               .view({rows, dim}));
  }
  return cache;
}

at::Tensor Transformer::decode(const at::Tensor& tokens,
                               const core::DecodeLayout& given,
                               KvCache& cache,
                               at::Tensor* expert_TLK) {
  at::NoGradGuard no_grad;
  const int64_t T = tokens.size(0);
  core::DecodeLayout layout = given;
  if (core::takes_device_branch(embedding_.value)) {
    const bool for_kernel = config_.uses_mla() && !cache.layers.empty() &&
                            core::device::has_decode_kernel(
                                cache.layers[0], config_.kv_lora_rank, config_.qk_rope_head_dim);
    core::device::prepare(layout, device_, for_kernel);
  }
  const core::RopeTable& rope = rope_table(T > 0 ? layout.position.max().item<int64_t>() + 1 : 1);
  at::Tensor x = embed(tokens);
  std::vector<at::Tensor> experts;
  for (size_t i = 0; i < layers_.size(); ++i) {
    at::Tensor expert_TK;
    x = layers_[i].decode(x, layout, rope, cache.layers[i], &expert_TK);
    if (expert_TLK && expert_TK.defined()) experts.push_back(expert_TK.to(at::kShort));
  }
  if (!experts.empty()) *expert_TLK = core::to_host(at::stack(experts, 1));
  return core::rms_norm(x, final_norm_.value, config_.rms_norm_eps);
}

/// h_i^k = Layer_k(M_k [norm(Emb(t_{i+k})) ; norm(h_i^{k-1})])  (eq. 21-23; the order as config
/// says).
at::Tensor Transformer::run_mtp_module(MtpModule& module,
                                       const at::Tensor& hidden,
                                       const at::Tensor& ahead,
                                       const core::AttentionLayout& layout,
                                       const core::RopeTable& rope,
                                       const PassOptions& options,
                                       ModelOutput& output) {
  const double eps = config_.rms_norm_eps;
  const at::Tensor h = core::rms_norm(hidden, module.hidden_norm.value, eps);
  const at::Tensor e = core::rms_norm(ahead, module.embedding_norm.value, eps);
  const at::Tensor joined = config_.mtp_embedding_first ? at::cat({e, h}, -1) : at::cat({h, e}, -1);
  auto out =
      run_layer(module.layer, core::linear(joined, module.projection.value), layout, rope, options);
  if (out.sequence_loss.defined()) output.sequence_loss = output.sequence_loss + out.sequence_loss;
  output.mtp_hidden.push_back(core::rms_norm(out.x, module.output_norm.value, eps));
  return out.x;
}

void Transformer::run_mtp(const at::Tensor& embedded,
                          const at::Tensor& document_id,
                          at::Tensor hidden,
                          const core::RopeTable& rope,
                          const PassOptions& options,
                          ModelOutput& output) {
  const int64_t B = embedded.size(0), S = embedded.size(1);
  for (size_t i = 0; i < mtp_.size(); ++i) {
    const int64_t k = static_cast<int64_t>(i) + 1, length = S - k;
    const auto layout = placed(core::attention_layout(
        B, length, document_id.defined() ? document_id.narrow(1, 0, length) : at::Tensor()));
    hidden = run_mtp_module(mtp_[i],
                            hidden.narrow(1, 0, length),
                            embedded.narrow(1, k, length),
                            layout,
                            rope,
                            options,
                            output);
  }
}

void Transformer::run_mtp(const at::Tensor& embedded,
                          const core::AttentionLayout& layout,
                          at::Tensor hidden,
                          const core::RopeTable& rope,
                          const PassOptions& options,
                          ModelOutput& output) {
  const int64_t D = embedded.size(2);
  const at::Tensor embedded_TD = embedded.reshape({-1, D});
  const auto here = [&](const std::vector<int64_t>& rows) {
    return at::tensor(rows, at::kLong).to(device_, /*non_blocking=*/true);
  };
  // Of each run, a depth has the positions but the last k: what lies k ahead is in the run.
  core::AttentionLayout shorter{1, 0, {}, false};
  for (const auto& run : layout.runs) shorter.runs.push_back({0, 0, run.count, run.position});
  for (size_t i = 0; i < mtp_.size(); ++i) {
    const int64_t k = static_cast<int64_t>(i) + 1;
    std::vector<int64_t> kept, ahead;
    std::vector<core::AttentionLayout::Run> runs;
    for (size_t r = 0, before = 0; r < layout.runs.size(); ++r) {
      const auto& run = layout.runs[r];
      const int64_t count = std::max<int64_t>(0, run.count - k);
      const int64_t first = static_cast<int64_t>(kept.size());
      for (int64_t t = 0; t < count; ++t) {
        kept.push_back(static_cast<int64_t>(before) + t);
        ahead.push_back(run.row * layout.seq_len + run.first + t + k);
      }
      before += static_cast<size_t>(shorter.runs[r].count);
      shorter.runs[r] = {0, first, count, run.position};
      if (count > 0) runs.push_back(shorter.runs[r]);
    }
    shorter.seq_len = static_cast<int64_t>(kept.size());
    const auto of_depth = placed({1, shorter.seq_len, runs, runs.size() == 1});
    hidden = run_mtp_module(mtp_[i],
                            hidden.reshape({-1, D}).index_select(0, here(kept)).unsqueeze(0),
                            embedded_TD.index_select(0, here(ahead)).unsqueeze(0),
                            of_depth,
                            rope,
                            options,
                            output);
  }
}

core::ParameterList Transformer::parameters() const {
  core::ParameterList out{embedding_};
  for (const auto& layer : layers_) layer.collect(out);
  out.push_back(final_norm_);
  for (const auto& module : mtp_) {
    for (const auto* p : {&module.hidden_norm, &module.embedding_norm, &module.projection})
      out.push_back(*p);
    module.layer.collect(out);
    out.push_back(module.output_norm);
  }
  if (!config_.tie_word_embeddings) out.push_back(head_);
  return out;
}

std::vector<core::Buffer> Transformer::buffers() const {
  std::vector<core::Buffer> out;
  for (const auto& layer : layers_) layer.collect_buffers(out);
  for (const auto& module : mtp_) module.layer.collect_buffers(out);
  return out;
}

std::vector<MoeLayer*> Transformer::moe_layers() {
  std::vector<MoeLayer*> out;
  for (auto& layer : layers_)
    if (layer.moe()) out.push_back(layer.moe());
  for (auto& module : mtp_)
    if (module.layer.moe()) out.push_back(module.layer.moe());
  return out;
}

}  // namespace cohort::moe
