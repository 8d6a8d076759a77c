// Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434, eq. 9-19, 37-47) and grouped-query
// attention, for training.
#pragma once
#include <ATen/ATen.h>

#include <memory>
#include <string>

#include "core/config/config.h"
#include "core/nn/init.h"
#include "core/nn/parameter.h"
#include "core/nn/rope.h"

namespace cohort::core {

/// Who may look at whom: causal, within documents. Made once a batch and shared by all layers.
struct AttentionLayout {
  int64_t batch = 0, seq_len = 0;
  /// Runs (row, first, count) of one document, in order, covering every position. One run a row
  /// when there are no boundaries.
  struct Run {
    int64_t row, first, count;
  };
  std::vector<Run> runs;
  bool one_run_a_row = true;
};
/// document_id [B, S] int64 or undefined (one document a row).
AttentionLayout attention_layout(int64_t batch, int64_t seq_len, const at::Tensor& document_id);

/// softmax(scale q k^T) v, causal within each run; differentiable, never holding [S, S] of all
/// heads at once. q [B, S, H, Dqk], k [B, S, Hkv, Dqk], v [B, S, Hkv, Dv] -> [B, S, H, Dv]; Hkv
/// divides H. fp32, fp64 or bf16 (computed in fp32, rounded once). A run's results have the same
/// bits whatever else is in the batch, whatever the number of threads, and for a prefix of the run.
at::Tensor causal_attention(const at::Tensor& q,
                            const at::Tensor& k,
                            const at::Tensor& v,
                            const AttentionLayout& layout,
                            double scale);

/// Two implementations: MLA (config.uses_mla()) and GQA. Parameter names are Hugging Face's, below
/// `prefix` ("model.layers.0.self_attn.").
class Attention {
 public:
  virtual ~Attention() = default;
  /// x [B, S, D] (already normalised) -> [B, S, D].
  virtual at::Tensor forward(const at::Tensor& x,
                             const AttentionLayout& layout,
                             const RopeTable& rope) const = 0;
  virtual void collect(ParameterList& out) const = 0;
};
std::unique_ptr<Attention> make_attention(const ModelConfig& config,
                                          const std::string& prefix,
                                          const Initializer& init);

/// The head size that rotates (qk_rope_head_dim for MLA, the whole head for GQA): the dim of the
/// RopeTable to make.
int64_t rope_dim(const ModelConfig& config);

}  // namespace cohort::core
