// The model: embedding, decoder layers, final norm, and the multi-token-prediction modules
// (DeepSeek-V3, arXiv:2412.19437, section 2). Dense and GQA models are the same class with other
// settings. Parameter names are Hugging Face's.
#pragma once
#include <ATen/ATen.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/config/config.h"
#include "core/nn/attention.h"
#include "core/nn/parameter.h"
#include "distributed/communicator.h"
#include "moe/mlp.h"
#include "moe/moe_layer.h"

namespace cohort::moe {

/// Experts chosen for the tokens of a pass before it is made: those of the sampling pass, so that
/// training reinforces the experts that acted. `mismatched` of the `compared` (token, layer) pairs
/// would have been routed otherwise.
struct RoutingReplay {
  at::Tensor expert_TLK;                 ///< int16 [T, MoE layers, K]; ascending in a row.
  int64_t compared = 0, mismatched = 0;  ///< Added to by the pass.
  at::Tensor
      pending;  ///< What the device branch has counted and `settle` has not yet brought home.

  /// Completes `mismatched` with what still lies on the device.
  void settle();
};

/// How a forward pass is to be made.
struct PassOptions {
  bool count_loads = false;  ///< Training: add the routed pairs to each layer's load.
  bool recompute = false;    ///< Keep each layer's input only.
  bool mtp = false;          ///< Run the multi-token-prediction modules too.
  bool absorbed = false;     ///< MLA in the form in which `decode` computes it: the same function,
                             ///< and in fp32 the very bits of decoding.
  std::shared_ptr<RoutingReplay> replay = nullptr;
};

struct ModelOutput {
  at::Tensor hidden;  ///< [B, S, D] after the final norm: head() times it are the logits.
  /// Depth k = 1, 2, ...: [B, S - k, D] after its norm; position i predicts token i + k + 1.
  std::vector<at::Tensor> mtp_hidden;
  at::Tensor sequence_loss;  ///< Scalar: sum over rows and MoE layers of eq. 17 without alpha.
};

/// x + attention(norm(x)), then x + mlp(norm(x)).
class DecoderLayer {
 public:
  DecoderLayer(const core::ModelConfig& config,
               int64_t layer_idx,
               const core::Initializer& init,
               std::shared_ptr<distributed::Communicator> ep);
  struct Output {
    at::Tensor x, sequence_loss;
  };
  Output forward(const at::Tensor& x,
                 const core::AttentionLayout& layout,
                 const core::RopeTable& rope,
                 RoutingMemory& memory,
                 const PassOptions& options);
  /// x [T, D] -> [T, D], over and into one layer's cache. `expert_TK`: the choice made, if wanted.
  at::Tensor decode(const at::Tensor& x,
                    const core::DecodeLayout& layout,
                    const core::RopeTable& rope,
                    const at::Tensor& cache,
                    at::Tensor* expert_TK);
  int64_t cache_dim() const { return attention_->cache_dim(); }
  MoeLayer* moe() { return moe_ ? &*moe_ : nullptr; }
  void collect(core::ParameterList& out) const;
  void collect_buffers(std::vector<core::Buffer>& out) const;

 private:
  at::Tensor add_mlp(const at::Tensor& attended,
                     RoutingMemory& memory,
                     bool count_loads,
                     at::Tensor* sequence_loss);

  double eps_;
  core::Parameter input_norm_, post_attention_norm_;
  std::unique_ptr<core::Attention> attention_;
  std::optional<Mlp> mlp_;
  std::optional<MoeLayer> moe_;
};

/// Keys and values of every decoder layer, [rows, cache_dim] each, for Transformer::decode.
struct KvCache {
  std::vector<at::Tensor> layers;
};

class Transformer {
 public:
  /// Weights are drawn by name from `seed`, the same on every mesh and device; this rank keeps its
  /// experts only. Ids, documents and layouts given to the passes stay on the CPU.
  Transformer(const core::ModelConfig& config,
              std::shared_ptr<distributed::Communicator> ep,
              uint64_t seed,
              at::ScalarType dtype,
              at::Device device = at::kCPU);

  /// input_ids int64 [B, S]; document_id int64 [B, S] or undefined (a row is one document).
  /// Collective over ep; differentiable.
  ModelOutput forward(const at::Tensor& input_ids,
                      const at::Tensor& document_id,
                      const PassOptions& options);

  /// The same for rows whose documents are told by `layout` (with positions of their own). At depth
  /// k mtp_hidden is [1, T_k, D]: the runs one after the other, each without its last k positions.
  ModelOutput forward(const at::Tensor& input_ids,
                      const core::AttentionLayout& layout,
                      const PassOptions& options);

  /// A cache of so many tokens (rows), without content.
  KvCache make_cache(int64_t rows) const;

  /// tokens int64 [T], of any sequences, at the positions and in the cache rows of `layout`:
  /// several of one sequence may come in one pass. -> [T, D] after the final norm. `expert_TLK`, if
  /// wanted, becomes int16 [T, MoE layers, K] on the CPU: the experts chosen. T may be 0. No
  /// gradient, no prediction modules. Collective over ep.
  at::Tensor decode(const at::Tensor& tokens,
                    const core::DecodeLayout& layout,
                    KvCache& cache,
                    at::Tensor* expert_TLK);

  /// [V, D]; the embedding itself when they are tied.
  const at::Tensor& head() const { return head_.value; }
  const core::ModelConfig& config() const { return config_; }
  at::ScalarType dtype() const { return dtype_; }
  at::Device device() const { return device_; }

  core::ParameterList parameters() const;
  std::vector<core::Buffer> buffers() const;
  /// MoE layers in order, those of MTP modules last.
  std::vector<MoeLayer*> moe_layers();

 private:
  /// One module of depth k: a projection of [embedding ; hidden] and a decoder layer.
  struct MtpModule {
    core::Parameter hidden_norm, embedding_norm, projection, output_norm;
    DecoderLayer layer;
  };
  MtpModule make_mtp_module(int64_t layer_idx,
                            const core::Initializer& init,
                            std::shared_ptr<distributed::Communicator> ep) const;
  /// Fills hidden and sequence_loss; gives what the final norm read.
  at::Tensor run_layers(const at::Tensor& embedded,
                        const core::AttentionLayout& layout,
                        const core::RopeTable& rope,
                        const PassOptions& options,
                        ModelOutput& output);
  DecoderLayer::Output run_layer(DecoderLayer& layer,
                                 const at::Tensor& x,
                                 const core::AttentionLayout& layout,
                                 const core::RopeTable& rope,
                                 const PassOptions& options,
                                 const at::Tensor& replayed_TK = {});
  at::Tensor run_mtp_module(MtpModule& module,
                            const at::Tensor& hidden,
                            const at::Tensor& ahead,
                            const core::AttentionLayout& layout,
                            const core::RopeTable& rope,
                            const PassOptions& options,
                            ModelOutput& output);
  void run_mtp(const at::Tensor& embedded,
               const core::AttentionLayout& layout,
               at::Tensor hidden,
               const core::RopeTable& rope,
               const PassOptions& options,
               ModelOutput& output);
  void run_mtp(const at::Tensor& embedded,
               const at::Tensor& document_id,
               at::Tensor hidden,
               const core::RopeTable& rope,
               const PassOptions& options,
               ModelOutput& output);
  const core::RopeTable& rope_table(int64_t length);

  /// With positions where the device branch wants them.
  core::AttentionLayout placed(core::AttentionLayout layout) const;
  /// Embeddings of ids that are on the CPU.
  at::Tensor embed(const at::Tensor& ids) const;

  core::ModelConfig config_;
  at::ScalarType dtype_;
  at::Device device_;
  core::Parameter embedding_, final_norm_, head_;
  std::vector<DecoderLayer> layers_;
  std::vector<MtpModule> mtp_;
  core::RopeTable rope_;
};

}  // namespace cohort::moe
