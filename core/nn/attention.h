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
  /// when there are no boundaries. `position`: of the run's first token, for the rotation;
  /// distances alone matter to the function, but not to its bits.
  struct Run {
    int64_t row, first, count, position;
  };
  std::vector<Run> runs;
  bool one_run_a_row = true;
  /// For the device branch alone (core/nn/device/attention.h), which makes its own when undefined;
  /// where the tokens are: int64 [B S] the position of each, and [runs + 1] the first token of each
  /// run.
  at::Tensor position{}, run_start{};
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

/// Where the tokens of a decoding pass stand in a cache of keys and values. Made once a pass and
/// shared by all layers.
struct DecodeLayout {
  at::Tensor position;    ///< int64 [T]: of each token in its sequence.
  at::Tensor slot;        ///< int64 [T]: the cache row that takes its key and value.
  at::Tensor spans;       ///< int64 [n, 2]: (first row, rows), the visible rows in order.
  at::Tensor first_span;  ///< int64 [T + 1]: token t sees spans [first_span[t], first_span[t + 1]),
                          ///< position + 1 rows, its own the last. Rows written by the same pass
                          ///< are visible.
  /// For the device branch alone, filled in by device::prepare: position, slot, spans and
  /// first_span where the tokens are, the most rows that a token sees, and int64 [T, longest] the
  /// cache row of each visible token, -1 beyond them; or the spans without the rows, or the rows
  /// without the spans.
  at::Tensor device_position{}, device_slot{}, device_rows{}, device_spans{}, device_first_span{};
  int64_t longest = 0;
};

/// Elements that a decoding pass may read beyond the last row of a layer's cache.
inline constexpr int64_t kCachePadding = 32;

/// Two implementations: MLA (config.uses_mla()) and GQA. Parameter names are Hugging Face's, below
/// `prefix` ("model.layers.0.self_attn.").
class Attention {
 public:
  virtual ~Attention() = default;
  /// x [B, S, D] (already normalised) -> [B, S, D].
  virtual at::Tensor forward(const at::Tensor& x,
                             const AttentionLayout& layout,
                             const RopeTable& rope) const = 0;
  /// The same function in the form that `decode` computes, with its very bits in fp32.
  virtual at::Tensor forward_as_decoded(const at::Tensor& x,
                                        const AttentionLayout& layout,
                                        const RopeTable& rope) const = 0;
  /// Elements of one token in the cache: MLA kv_lora_rank + qk_rope_head_dim (the latent, then the
  /// rotated key that all heads share), GQA 2 x num_key_value_heads x head_dim.
  virtual int64_t cache_dim() const = 0;
  /// x [T, D] -> [T, D]: writes the tokens' rows into cache [rows, cache_dim] (fp32, fp64 in an
  /// fp64 model, with kCachePadding elements behind it), then attends. No gradient.
  virtual at::Tensor decode(const at::Tensor& x,
                            const DecodeLayout& layout,
                            const RopeTable& rope,
                            const at::Tensor& cache) const = 0;
  virtual void collect(ParameterList& out) const = 0;
};
std::unique_ptr<Attention> make_attention(const ModelConfig& config,
                                          const std::string& prefix,
                                          const Initializer& init);

/// The head size that rotates (qk_rope_head_dim for MLA, the whole head for GQA): the dim of the
/// RopeTable to make.
int64_t rope_dim(const ModelConfig& config);

}  // namespace cohort::core
