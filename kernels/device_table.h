// The device kernels as a table of calls on plain pointers: what core and moe call where tensors
// are on a device, without a header of CUDA. There are two of them: kernels::cuda::device_table,
// which a binary with COHORT_GPU holds, and kernels::emulated::device_table, which runs the same
// sources on the host, for tests. Arguments are those of the functions in kernels/cuda/*.cuh, which
// say what they mean. Pointers are memory of the device; `stream` is its cudaStream_t; elements are
// of the type that Element says.
#pragma once
#include <cstddef>
#include <cstdint>

namespace cohort::kernels {

enum class Element { kFloat, kBfloat16 };

/// RouterShape of kernels/cuda/router.cuh.
struct DeviceRouting {
  int64_t T, E, K, num_groups, groups_kept;
  bool softmax, normalise;
  float scale;
};

/// AttentionProblem of kernels/cuda/attention_forward.cuh.
struct DeviceAttention {
  int64_t num_tokens, num_runs;
  const int64_t* run_start;
  int64_t longest_run, heads, kv_heads, qk_dim, v_dim;
  float scale;
  bool wgmma;  ///< By the kernels of Hopper, where attends_by_wgmma.
};

/// DecodeAttentionProblem of kernels/cuda/attention_decode.cuh.
struct DeviceDecoding {
  int64_t queries, heads, latent_dim, rope_dim, row;
  const int64_t *spans, *first_span, *position;
  int64_t longest;
  float scale;
};

struct DeviceTable {
  size_t (*sort_pairs_workspace)(int64_t num_pairs, int64_t E);
  void (*sort_pairs)(const int64_t* expert,
                     int64_t num_pairs,
                     int64_t E,
                     int64_t* count,
                     int64_t* pair_at,
                     int64_t* place_of,
                     void* workspace,
                     void* stream);
  void (*gather_rows)(Element,
                      const void* in,
                      const int64_t* index,
                      int64_t divisor,
                      int64_t num_rows,
                      int64_t D,
                      void* out,
                      void* stream);
  void (*scatter_rows)(Element,
                       const void* in,
                       const int64_t* index,
                       int64_t num_rows,
                       int64_t D,
                       void* out,
                       void* stream);
  void (*combine_rows)(Element,
                       const void* rows,
                       const int64_t* place_of,
                       const float* gate,
                       int64_t T,
                       int64_t K,
                       int64_t D,
                       void* out,
                       void* stream);
  void (*combine_rows_backward)(Element,
                                const void* d_out,
                                const void* rows,
                                const int64_t* place_of,
                                const float* gate,
                                int64_t T,
                                int64_t K,
                                int64_t D,
                                void* d_rows,
                                float* d_gate,
                                void* stream);

  bool (*routes)(const DeviceRouting&);  ///< Whether `route` takes this shape.
  void (*route)(const DeviceRouting&,
                const float* logits,
                const float* bias,
                float* scores,
                int64_t* expert,
                float* gate,
                void* stream);
  void (*route_backward)(const DeviceRouting&,
                         const float* scores,
                         const int64_t* expert,
                         const float* d_gate,
                         const float* d_scores,
                         float* d_logits,
                         void* stream);

  bool (*attends)(int64_t qk_dim,
                  int64_t v_dim);  ///< Whether attention of bf16 has these head sizes.
  /// Whether the current device and these head sizes have kernels of wgmma and TMA.
  bool (*attends_by_wgmma)(int64_t qk_dim, int64_t v_dim);
  void (*attention_forward)(const DeviceAttention&,
                            const void* q,
                            const void* k,
                            const void* v,
                            void* out,
                            float* lse,
                            void* stream);
  size_t (*attention_backward_workspace)(const DeviceAttention&);
  void (*attention_backward)(const DeviceAttention&,
                             const void* q,
                             const void* k,
                             const void* v,
                             const void* out,
                             const float* lse,
                             const void* d_out,
                             void* d_q,
                             void* d_k,
                             void* d_v,
                             void* workspace,
                             void* stream);

  bool (*decodes)(int64_t latent_dim, int64_t rope_dim);
  size_t (*attention_decode_workspace)(const DeviceDecoding&);
  void (*attention_decode)(Element,
                           const DeviceDecoding&,
                           const void* q,
                           const void* cache,
                           void* out,
                           void* workspace,
                           void* stream);
};

namespace cuda {
const DeviceTable& device_table();
}
namespace emulated {
const DeviceTable& device_table();
}

}  // namespace cohort::kernels
