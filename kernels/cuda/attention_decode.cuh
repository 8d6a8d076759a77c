// Decoding over a cache of latents on the device: MLA in its absorbed form (DeepSeek-V2,
// arXiv:2405.04434, section 2.1.2), where all heads of a token read the same rows.
#pragma once
#include <cstddef>
#include <cstdint>

#include "kernels/cuda/device.cuh"

namespace cohort::kernels::COHORT_DEVICE {

/// Token t sees spans [first_span[t], first_span[t + 1]) of the cache, (first row, rows) each, in
/// order: position[t] + 1 rows. All pointers are device memory.
struct DecodeAttentionProblem {
  int64_t queries = 0, heads = 1;
  int64_t latent_dim = 512, rope_dim = 64;  ///< (512, 64) or (256, 32).
  int64_t row = 576;  ///< Elements from a cache row to the next; whole pieces of 16 bytes.
  const int64_t* spans = nullptr;       ///< [n, 2]
  const int64_t* first_span = nullptr;  ///< [queries + 1]
  const int64_t* position = nullptr;    ///< [queries]
  int64_t longest = 0;                  ///< At least each position + 1: sizes the launch.
  int64_t rows_per_split = 1024;        ///< 1 to 2048.
  float scale = 1;
};

/// Whether attention_decode has these sizes.
bool has_decode_kernel(int64_t latent_dim, int64_t rope_dim);

/// Bytes of workspace that attention_decode wants.
size_t attention_decode_workspace(const DecodeAttentionProblem& problem);

/// q [queries, heads, latent_dim + rope_dim], the absorbed and the rotated part, over cache rows
/// (latent, rotated key) -> out [queries, heads, latent_dim], the weighted latents. T is float or
/// bf16; sums are fp32; beyond 16 heads in bf16 the weights are rounded to bf16 too, for the tensor
/// cores. A token's bits depend on its own rows, rows_per_split and the number of heads alone. Rows
/// below 2^31. Throws std::invalid_argument for sizes that are not there.
template <class T>
void attention_decode(const DecodeAttentionProblem& problem,
                      const T* q,
                      const T* cache,
                      T* out,
                      void* workspace,
                      Stream stream);

}  // namespace cohort::kernels::COHORT_DEVICE
