#include "moe/upcycle.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <set>

#include "core/base/error.h"
#include "core/config/validate.h"
#include "core/nn/init.h"

namespace cohort::moe {
namespace {

using Kind = UpcycledTensor::Kind;

void check_source(const core::ModelConfig& dense) {
  for (int64_t i = 0; i < dense.num_hidden_layers + dense.num_nextn_predict_layers; ++i)
    COHORT_CHECK_INPUT(!dense.is_moe_layer(i),
                       "layer {} of the source has {} routed experts already; want a dense model",
                       i,
                       dense.n_routed_experts);
  COHORT_CHECK_INPUT(
      dense.model_type != "qwen2",
      "the source is a qwen2, whose attention has biases: no mixture of experts that "
      "Cohort knows computes that; want a qwen3 or a dense deepseek_v3");
}

void check_options(const core::ModelConfig& dense, const UpcycleOptions& o) {
  COHORT_CHECK_INPUT(
      o.granularity >= 1 && dense.intermediate_size % o.granularity == 0,
      "--granularity: an inner size of {} cannot be cut into {} equal slices; want a "
      "divisor of it",
      dense.intermediate_size,
      o.granularity);
  COHORT_CHECK_INPUT(o.shared >= 0 && o.shared < o.granularity,
                     "--shared: {} of {} slices leave none to route; want fewer, or a higher "
                     "--granularity",
                     o.shared,
                     o.granularity);
  const int64_t routed = o.granularity - o.shared;
  COHORT_CHECK_INPUT(o.experts >= 1 && o.experts % routed == 0,
                     "--experts: {} are no whole number of copies of the {} routed slices; want a "
                     "multiple of {}",
                     o.experts,
                     routed,
                     routed);
  COHORT_CHECK_INPUT(o.top_k >= 1 && o.top_k % routed == 0 && o.top_k <= o.experts,
                     "--top-k: a token needs each of the {} routed slices equally often; want a "
                     "multiple of {} up to {}, not {}",
                     routed,
                     routed,
                     o.experts,
                     o.top_k);
  COHORT_CHECK_INPUT(o.dense_layers >= 0 && o.dense_layers < dense.num_hidden_layers,
                     "--dense-layers: {} of {} layers leave none to make sparse; want fewer",
                     o.dense_layers,
                     dense.num_hidden_layers);
  if (dense.model_type == "deepseek_v3") return;
  COHORT_CHECK_INPUT(o.shared == 0 && o.dense_layers == 0,
                     "{}: a qwen3_moe has neither shared experts nor dense layers at the start; "
                     "want it left out",
                     o.shared > 0 ? "--shared" : "--dense-layers");
  COHORT_CHECK_INPUT(std::has_single_bit(static_cast<uint64_t>(routed)),
                     "--granularity: a qwen3_moe's experts are scaled by {} in down_proj, which "
                     "rounds; want a power of two",
                     routed);
}

/// "model.layers.N.mlp." and N; -1 for another tensor.
int64_t mlp_layer_of(const std::string& name) {
  constexpr std::string_view kPrefix = "model.layers.", kMlp = ".mlp.";
  if (!name.starts_with(kPrefix)) return -1;
  int64_t layer = -1;
  const auto end = name.data() + name.size();
  const auto [rest, error] = std::from_chars(name.data() + kPrefix.size(), end, layer);
  if (error != std::errc() || !std::string_view(rest, end).starts_with(kMlp)) return -1;
  return layer;
}

/// The three tensors of an MLP made of inner units [first, first + count) of the source's.
void add_slice(const std::string& from,
               const std::string& to,
               int64_t hidden,
               int64_t first,
               int64_t count,
               double scale,
               std::vector<UpcycledTensor>& out) {
  for (const char* name : {"gate_proj.weight", "up_proj.weight"})
    out.push_back({to + name, {count, hidden}, Kind::kRows, from + name, first, count});
  const std::string down = "down_proj.weight";
  out.push_back({to + down, {hidden, count}, Kind::kColumns, from + down, first, count, scale});
}

void add_layer(const std::string& prefix,
               const core::ModelConfig& moe,
               const UpcycleOptions& options,
               std::vector<UpcycledTensor>& out) {
  const int64_t D = moe.hidden_size, E = moe.n_routed_experts, width = moe.moe_intermediate_size;
  const int64_t routed = options.granularity - options.shared;
  const bool deepseek = moe.model_type == "deepseek_v3";
  out.push_back({prefix + "gate.weight",
                 {E, D},
                 Kind::kRouter,
                 prefix + "gate_proj.weight",
                 E / routed,
                 routed});
  if (deepseek) out.push_back({prefix + "gate.e_score_correction_bias", {E}, Kind::kZeros, ""});
  const double scale = deepseek ? 1.0 : static_cast<double>(routed);
  for (int64_t e = 0; e < E; ++e)
    add_slice(prefix,
              fmt::format("{}experts.{}.", prefix, e),
              D,
              (options.shared + e % routed) * width,
              width,
              scale,
              out);
  if (options.shared > 0)
    add_slice(prefix, prefix + "shared_experts.", D, 0, options.shared * width, 1.0, out);
}

}  // namespace

core::ModelConfig upcycled_config(const core::ModelConfig& dense, const UpcycleOptions& options) {
  check_source(dense);
  check_options(dense, options);
  core::ModelConfig moe = dense;
  if (dense.model_type == "qwen3") moe.model_type = "qwen3_moe";
  core::fix_model_type(moe);
  moe.n_routed_experts = options.experts;
  moe.num_experts_per_tok = options.top_k;
  moe.moe_intermediate_size = dense.intermediate_size / options.granularity;
  moe.norm_topk_prob = true;
  moe.first_k_dense_replace = options.dense_layers;
  moe.n_shared_experts = options.shared;
  if (moe.model_type == "deepseek_v3") {
    moe.n_group = moe.topk_group = 1;
    moe.routed_scaling_factor = static_cast<double>(options.granularity - options.shared);
  } else {
    moe.decoder_sparse_step = 1;
  }
  core::validate_model(moe, core::Origins("upcycle"));
  return moe;
}

std::vector<UpcycledTensor> plan_upcycling(const core::ModelConfig& dense,
                                           const UpcycleOptions& options,
                                           const std::vector<std::string>& names) {
  const core::ModelConfig moe = upcycled_config(dense, options);
  const std::set<std::string> given(names.begin(), names.end());
  std::vector<UpcycledTensor> out;
  for (const std::string& name : given)
    if (const int64_t layer = mlp_layer_of(name); layer < 0 || !moe.is_moe_layer(layer))
      out.push_back({name, {}, Kind::kCopy, name});
  for (int64_t i = 0; i < dense.num_hidden_layers + dense.num_nextn_predict_layers; ++i)
    if (moe.is_moe_layer(i)) add_layer(fmt::format("model.layers.{}.mlp.", i), moe, options, out);
  std::set<std::string> missing;
  for (const UpcycledTensor& tensor : out)
    if (!tensor.source.empty() && !given.contains(tensor.source)) missing.insert(tensor.source);
  COHORT_CHECK_INPUT(
      missing.empty(), "the source lacks {}; want every layer's MLP", fmt::join(missing, ", "));
  return out;
}

at::Tensor upcycled_tensor(const UpcycledTensor& tensor,
                           const core::ModelConfig& moe,
                           uint64_t seed,
                           const std::function<at::Tensor(const std::string&)>& source) {
  if (tensor.kind == Kind::kZeros) return at::zeros(tensor.shape, at::kFloat);
  const at::Tensor from = source(tensor.source);
  if (tensor.kind == Kind::kCopy) return from.contiguous();
  if (tensor.kind == Kind::kRouter) {
    const core::Initializer init{seed, moe.initializer_range, from.scalar_type(), at::kCPU};
    const at::Tensor copies = at::empty({tensor.first, tensor.shape[1]}, from.options());
    init.fill_normal(tensor.name, copies);
    return copies.repeat_interleave(tensor.count, 0).contiguous();
  }
  const int64_t dim = tensor.kind == Kind::kRows ? 0 : 1;
  COHORT_CHECK_INPUT(from.dim() == 2 && from.size(1 - dim) == tensor.shape[1 - dim] &&
                         from.size(dim) >= tensor.first + tensor.count,
                     "{} is [{}]; want the {} inner units and {} channels of config.json",
                     tensor.source,
                     fmt::join(from.sizes(), ", "),
                     moe.intermediate_size,
                     moe.hidden_size);
  const at::Tensor slice = from.narrow(dim, tensor.first, tensor.count);
  return (tensor.scale == 1 ? slice : slice * tensor.scale).contiguous();
}

}  // namespace cohort::moe
