// Causal attention within documents, forward: FlashAttention-2 (Dao, arXiv:2307.08691, algorithm 1)
// on the tensor cores of sm_80 and up, with the online softmax of Milakov and Gimelshein
// (arXiv:1805.02867).
//
// Algorithm: a block of four warps takes 64 queries of one head, 16 a warp, and goes over the keys
// of their run in tiles of 64. Scores S = q k^T stay in registers as sums of mma, become
// probabilities exp2(S - running maximum) there, and, rounded to bf16, are the left side of P v
// without passing through memory: two neighbouring sums have the layout of one left fragment. What
// was added under an older maximum is multiplied by exp2(old - new). Tiles of k and v come by
// cp.async into two stages; tile j + 1 is under way while j is computed, and one barrier a tile
// both publishes j and frees the stage of j - 1. The queries pass through the second stage on their
// way to registers before it is needed. Causality alone bounds the keys: those beyond the end of
// the run come after each of its queries.
//
// The order of sums begins at the run's first key whatever the batch: bits of a query depend on its
// run up to itself alone. No atomics. Departures from the paper: key tiles are visited first to
// last for that reason; keys of the diagonal tile are skipped by groups of 16.
//
// FLOPs: 2 (Dqk + Dv) a query, head and visible key: n^2 (Dqk + Dv) a head of a run of n. Bytes, a
// head: q, out and lse once; k and v of a run n / 128 times on average, from L2 but the first time.
// At 192/128 a tile of 64 x 64 is 2.6 MFLOP for 40 KB, 64 FLOP a byte of L2: bound by the tensor
// cores. Launch: 128 threads, runs x ceil(longest / 64) x heads blocks, the long ones (late
// queries) first; shared memory 2 x 64 (Dqk + Dv) bf16 = 80 KB at 192/128: two blocks a
// multiprocessor on sm_80 and sm_90.
#include "kernels/cuda/attention_forward.cuh"

#include "kernels/cuda/attention_pieces.cuh"

namespace cohort::kernels::COHORT_DEVICE {
namespace {

constexpr int kWarps = 4, kThreads = 32 * kWarps;
constexpr int kQueries = 16 * kWarps, kKeys = 64;

/// Two stages of a tile of k, then two of v. Addresses are computed: an array of pointers indexed
/// by the tile would live in local memory.
template <int kQk, int kV>
struct Stages {
  static constexpr int kKeyTile = kKeys * RowTile<kQk>::kStride;
  static constexpr int kValueTile = kKeys * RowTile<kV>::kStride;
  static constexpr size_t kBytes = 2 * sizeof(bf16) * (kKeyTile + kValueTile);
  bf16* memory;
  __device__ bf16* k(int tile) const { return memory + (tile % 2 ? kKeyTile : 0); }
  __device__ bf16* v(int tile) const { return memory + 2 * kKeyTile + (tile % 2 ? kValueTile : 0); }
};

/// What a warp knows of its sixteen queries; a lane has rows lane / 4 and lane / 4 + 8.
template <int kQk, int kV>
struct Rows {
  uint32_t q[kQk / 16][4];
  float out[kV / 8][4] = {};
  RunningSoftmax softmax;
};

/// Keys that meet the queries at a time: at 192/128 the scores of 64 would not fit the registers
/// beside the queries and sums.
template <int kQk>
constexpr int kStep = kQk > 128 ? 32 : 64;

/// Keys [begin, begin + kStep) of a tile. In the diagonal tile, whose first key is the block's
/// first query, the warp's queries see the groups of 16 keys before their own, and of their own the
/// lower triangle.
template <int kQk, int kV, bool kDiagonal>
__device__ void attend(
    Rows<kQk, kV>& rows, const bf16* k, const bf16* v, int begin, float scale_log2) {
  constexpr int kKeys = kStep<kQk>;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int groups = kDiagonal ? warp + 1 - begin / 16 : kKeys / 16;
  if (groups <= 0) return;
  float s[kKeys / 8][4] = {};
#pragma unroll
  for (int group = 0; group < kKeys / 16; ++group) {
    if (kDiagonal && group >= groups) continue;
#pragma unroll
    for (int d = 0; d < kQk / 16; ++d) {
      uint32_t left[2], right[2];
      load_b<kQk>(left, right, k, begin + group * 16, d);
      mma_m16n8k16(s[2 * group], rows.q[d], left);
      mma_m16n8k16(s[2 * group + 1], rows.q[d], right);
    }
  }
  if (kDiagonal) mask_later_keys(s, begin, warp * 16 + lane / 4);
  float shrink[2];
  rows.softmax.add(s, scale_log2, shrink);
  scale_rows(rows.out, shrink);
#pragma unroll
  for (int group = 0; group < kKeys / 16; ++group) {
    if (kDiagonal && group >= groups) continue;
    uint32_t p[4];
    sums_as_a(p, s[2 * group], s[2 * group + 1]);
#pragma unroll
    for (int n = 0; n < kV / 16; ++n) {
      uint32_t left[2], right[2];
      load_b_transposed<kV>(left, right, v, begin + group * 16, n);
      mma_m16n8k16(rows.out[2 * n], p, left);
      mma_m16n8k16(rows.out[2 * n + 1], p, right);
    }
  }
}

template <int kQk, int kV>
__global__ void __launch_bounds__(kThreads) forward_kernel(const bf16* q,
                                                           const bf16* k,
                                                           const bf16* v,
                                                           const int64_t* run_start,
                                                           int64_t num_tokens,
                                                           int64_t heads,
                                                           int64_t kv_heads,
                                                           unsigned tiles,
                                                           float scale,
                                                           bf16* out,
                                                           float* lse) {
  const int64_t run = blockIdx.x / tiles, head = blockIdx.y, kv_head = head * kv_heads / heads;
  const int tile = static_cast<int>(tiles - 1 - blockIdx.x % tiles);  // long ones first
  const int64_t run_first = run_start[run];
  const int count = static_cast<int>(run_start[run + 1] - run_first);
  const int first = tile * kQueries;
  if (first >= count) return;
  const int left = count - first;  // queries from the tile's first one on

  const int64_t q_stride = heads * kQk, k_stride = kv_heads * kQk, v_stride = kv_heads * kV;
  k += run_first * k_stride + kv_head * kQk;
  v += run_first * v_stride + kv_head * kV;
  const Stages<kQk, kV> stage{dynamic_shared<bf16>()};
  const auto load = [&](int j) {
    const int key = j * kKeys;
    load_tile<kQk, kKeys, kThreads>(k + key * k_stride, k_stride, count - key, stage.k(j));
    load_tile<kV, kKeys, kThreads>(v + key * v_stride, v_stride, count - key, stage.v(j));
  };

  load_tile<kQk, kQueries, kThreads>(
      q + (run_first + first) * q_stride + head * kQk, q_stride, left, stage.k(1));
  copy_async_commit();
  load(0);
  copy_async_commit();
  copy_async_wait<1>();
  __syncthreads();
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  Rows<kQk, kV> rows;
#pragma unroll
  for (int d = 0; d < kQk / 16; ++d) load_a<kQk>(rows.q[d], stage.k(1), warp * 16, d);

  const bool works = warp * 16 < left;
  const float scale_log2 = scale * kLog2E;
  for (int j = 0; j <= tile; ++j) {
    if (!kPlanted<Fault::kCopyWait>) copy_async_wait<0>();
    __syncthreads();
    if (j < tile) {
      load(j + 1);
      copy_async_commit();
    }
    if (!works) continue;
    for (int begin = 0; begin < kKeys; begin += kStep<kQk>) {
      if (j < tile)
        attend<kQk, kV, false>(rows, stage.k(j), stage.v(j), begin, scale_log2);
      else
        attend<kQk, kV, true>(rows, stage.k(j), stage.v(j), begin, scale_log2);
    }
  }
  if (!works) return;

  float inverse[2], row_lse[2];
  rows.softmax.finish(scale, inverse, row_lse);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = first + warp * 16 + lane / 4 + half * 8;
    if (lane % 4 == 0 && row < count) lse[head * num_tokens + run_first + row] = row_lse[half];
  }
  // The stage of v that the last tile does not use is free.
  const int64_t row = run_first + first + warp * 16;
  const int valid = left - warp * 16 - (kPlanted<Fault::kTail> ? 1 : 0);
  store_rows<kV>(rows.out,
                 inverse,
                 stage.v(tile + 1),
                 warp * 16,
                 out + (row * heads + head) * kV,
                 heads * kV,
                 valid);
}

struct Forward {
  const AttentionProblem& p;
  const bf16 *q, *k, *v;
  bf16* out;
  float* lse;
  Stream stream;
  template <int kQk, int kV>
  void run() const {
    const auto tiles = static_cast<unsigned>((p.longest_run + kQueries - 1) / kQueries);
    const dim3 blocks(static_cast<unsigned>(p.num_runs) * tiles, static_cast<unsigned>(p.heads));
    launch(forward_kernel<kQk, kV>,
           Grid(blocks, kThreads, Stages<kQk, kV>::kBytes, stream),
           q,
           k,
           v,
           p.run_start,
           p.num_tokens,
           p.heads,
           p.kv_heads,
           tiles,
           p.scale,
           out,
           lse);
  }
};

}  // namespace

bool has_attention_kernel(int64_t qk_dim, int64_t v_dim) {
  return at_head_sizes(qk_dim, v_dim, Nothing{});
}

void attention_forward(const AttentionProblem& problem,
                       const bf16* q,
                       const bf16* k,
                       const bf16* v,
                       bf16* out,
                       float* lse,
                       Stream stream) {
  if (problem.num_runs == 0 || problem.longest_run == 0) return;
  with_head_sizes(problem, "attention_forward", Forward{problem, q, k, v, out, lse, stream});
}

}  // namespace cohort::kernels::COHORT_DEVICE
