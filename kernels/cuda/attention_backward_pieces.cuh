// What the kernels of attention's gradients share.
#pragma once
#include "kernels/cuda/attention_backward.cuh"
#include "kernels/cuda/attention_pieces.cuh"

#if !COHORT_ON_DEVICE || defined(__CUDACC__)
namespace cohort::kernels::COHORT_DEVICE {

/// The operands, their heads and what is common to both kernels.
struct BackwardOperands {
  const bf16 *q, *k, *v, *d_out;
  const float *lse, *delta;  ///< [heads, T]
  const int64_t* run_start;
  int64_t num_tokens;
  int heads, kv_heads;
  unsigned tiles;  ///< Of a run, at most.
  float scale;
};

/// lse in units of log2 and delta of a lane's two queries; a query that is not there weighs
/// nothing.
struct QueryScalars {
  float lse[2], delta[2];
  __device__ void load(
      const BackwardOperands& of, int64_t head, int64_t run_first, int row, int n) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const bool there = row + half * 8 < n;
      const int64_t at = head * of.num_tokens + run_first + row + half * 8;
      lse[half] = there ? of.lse[at] * kLog2E : INFINITY;
      delta[half] = there ? of.delta[at] : 0.0f;
    }
  }
};

/// Scores become P, and dO v^T becomes dS without its scale. `query` and `key` are the first of the
/// tile's, counted from one origin; pairs above the diagonal weigh nothing.
template <int kTiles>
__device__ void softmax_gradient(float (&p)[kTiles][4],
                                 float (&d_s)[kTiles][4],
                                 const QueryScalars& of,
                                 int query,
                                 int key,
                                 float scale_log2) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int first = key + lane % 4 * 2 - query - lane / 4 - (kPlanted<Fault::kMask> ? 1 : 0);
#pragma unroll
  for (int n = 0; n < kTiles; ++n)
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      const float w = exp2_approx(fmaf(p[n][r], scale_log2, -of.lse[r / 2]));
      p[n][r] = first + n * 8 + r % 2 > r / 2 * 8 ? 0.0f : w;
      d_s[n][r] = p[n][r] * (d_s[n][r] - of.delta[r / 2]);
    }
}

/// delta [heads, T] = <out, d_out> of each query and head.
void attention_delta(const AttentionProblem& problem,
                     const bf16* out,
                     const bf16* d_out,
                     float* delta,
                     Stream stream);

}  // namespace cohort::kernels::COHORT_DEVICE
#endif
