// Causal attention of training batches on the device: the twin of core's causal_attention.
#pragma once
#include <cstdint>

#include "kernels/cuda/device.cuh"

namespace cohort::kernels::COHORT_DEVICE {

/// Tokens in runs of one document each: run r is tokens [run_start[r], run_start[r + 1]). A query
/// sees the keys of its run up to its own. Pointers are device memory, aligned to 16 bytes; rows
/// are contiguous.
struct AttentionProblem {
  int64_t num_tokens = 0, num_runs = 0;
  const int64_t* run_start = nullptr;  ///< [num_runs + 1], device memory; a run may be empty.
  int64_t longest_run = 0;             ///< At least the length of each run: sizes the launch.
  int64_t heads = 1, kv_heads = 1;     ///< kv_heads divides heads; head h uses h kv_heads / heads.
  /// (192, 128), (128, 128), (64, 64), (48, 32), (32, 32) or (16, 16).
  int64_t qk_dim = 0, v_dim = 0;
  float scale = 1;  ///< > 0
};

/// Whether attention_forward and attention_backward have these head sizes.
bool has_attention_kernel(int64_t qk_dim, int64_t v_dim);

/// out [T, heads, v_dim] = softmax(scale q k^T) v for q [T, heads, qk_dim], k [T, kv_heads,
/// qk_dim], v [T, kv_heads, v_dim]; lse [heads, T]: the natural logarithm of the sums that the
/// softmax divides by. A query's bits do not depend on other runs nor on later tokens. Throws
/// std::invalid_argument for sizes that are not there.
void attention_forward(const AttentionProblem& problem,
                       const bf16* q,
                       const bf16* k,
                       const bf16* v,
                       bf16* out,
                       float* lse,
                       Stream stream);

/// The same by wgmma and TMA, on compute capability 9.0 alone. Here a query's bits depend on other
/// runs in one way: where their values are not finite.
void attention_forward_hopper(const AttentionProblem& problem,
                              const bf16* q,
                              const bf16* k,
                              const bf16* v,
                              bf16* out,
                              float* lse,
                              Stream stream);
/// Whether the kernels of Hopper have these head sizes: (192, 128), (128, 128) and (64, 64).
bool has_hopper_attention(int64_t qk_dim, int64_t v_dim);

}  // namespace cohort::kernels::COHORT_DEVICE
