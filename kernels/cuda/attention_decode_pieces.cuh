// What the two decoding kernels share: the list of a split's cache rows.
#pragma once
#include "kernels/cuda/attention_decode.cuh"
#include "kernels/cuda/attention_pieces.cuh"

#if !COHORT_ON_DEVICE || defined(__CUDACC__)
namespace cohort::kernels::COHORT_DEVICE {

constexpr int kMostSplitRows = 2048;

inline int64_t splits_of(const DecodeAttentionProblem& p) {
  return (p.longest + p.rows_per_split - 1) / p.rows_per_split;
}

/// The splits of a problem of many heads on the tensor cores: sums [queries, heads, splits,
/// latent_dim], unnormalised, and softmax (maximum in units of log2, denominator) of each.
void split_many_heads(const DecodeAttentionProblem& problem,
                      const bf16* q,
                      const bf16* cache,
                      float* sums,
                      float2* softmax,
                      Stream stream);

/// Cache rows of the visible rows [begin, end), by the first warp.
__device__ inline void list_rows(const int64_t* spans,
                                 int64_t span,
                                 int64_t last_span,
                                 int64_t begin,
                                 int64_t end,
                                 int32_t* list) {
  const int lane = static_cast<int>(threadIdx.x);
  int64_t before = 0;
  for (; span < last_span && before < end; span += 32) {
    const bool there = span + lane < last_span;
    const int64_t first = there ? spans[2 * (span + lane)] : 0;
    const int64_t count = there ? spans[2 * (span + lane) + 1] : 0;
    int64_t through = count;
#pragma unroll
    for (unsigned distance = 1; distance < 32; distance *= 2) {
      const int64_t other = __shfl_up_sync(0xffffffffu, through, distance);
      if (lane >= static_cast<int>(distance)) through += other;
    }
    const int64_t start = before + through - count, stop = before + through;
    unsigned hits = __ballot_sync(0xffffffffu, count > 0 && start < end && stop > begin);
    for (; hits != 0; hits &= hits - 1) {
      const int from = __ffs(static_cast<int>(hits)) - 1;
      const int64_t shift = __shfl_sync(0xffffffffu, first - start, from);
      const int64_t low = max(__shfl_sync(0xffffffffu, start, from), begin);
      const int64_t high = min(__shfl_sync(0xffffffffu, stop, from), end);
      for (int64_t r = low + lane; r < high; r += 32)
        list[r - begin] = static_cast<int32_t>(r + shift);
    }
    before = __shfl_sync(0xffffffffu, stop, 31);
  }
}

}  // namespace cohort::kernels::COHORT_DEVICE
#endif
