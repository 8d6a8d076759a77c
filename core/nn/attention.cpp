#include "core/nn/attention.h"

#include "core/base/error.h"
#include "core/nn/attention_op.h"
#include "core/nn/gqa.h"
#include "core/nn/mla.h"

namespace cohort::core {

AttentionLayout attention_layout(int64_t batch, int64_t seq_len, const at::Tensor& document_id) {
  AttentionLayout layout{batch, seq_len, {}, true, {}};
  if (!document_id.defined()) {
    for (int64_t row = 0; row < batch; ++row) layout.runs.push_back({row, 0, seq_len, 0});
    return layout;
  }
  COHORT_CHECK(document_id.dim() == 2 && document_id.size(0) == batch &&
                   document_id.size(1) == seq_len && document_id.scalar_type() == at::kLong,
               "attention_layout: document_id must be {} x {} int64, not {} {}",
               batch,
               seq_len,
               fmt::join(document_id.sizes(), " x "),
               at::toString(document_id.scalar_type()));
  const auto ids = document_id.cpu().contiguous();
  for (int64_t row = 0; row < batch; ++row) {
    const int64_t* id = ids.const_data_ptr<int64_t>() + row * seq_len;
    for (int64_t first = 0, t = 1; t <= seq_len; ++t)
      if (t == seq_len || id[t] != id[first]) {
        layout.runs.push_back({row, first, t - first, first});
        first = t;
      }
  }
  layout.one_run_a_row = static_cast<int64_t>(layout.runs.size()) == batch;
  return layout;
}

at::Tensor causal_attention(const at::Tensor& q,
                            const at::Tensor& k,
                            const at::Tensor& v,
                            const AttentionLayout& layout,
                            double scale) {
  COHORT_CHECK(v.defined(), "causal_attention: no values");
  return attention_op({q, k, {}, v}, {}, layout, scale);
}

std::unique_ptr<Attention> make_attention(const ModelConfig& config,
                                          const std::string& prefix,
                                          const Initializer& init) {
  if (config.uses_mla()) return make_mla(config, prefix, init);
  return make_gqa(config, prefix, init);
}

int64_t rope_dim(const ModelConfig& config) {
  return config.uses_mla() ? config.qk_rope_head_dim : gqa_head_dim(config);
}

}  // namespace cohort::core
