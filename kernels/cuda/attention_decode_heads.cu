// Decoding over the latent cache for many heads, on the tensor cores of sm_80 and up: what
// attention_decode.cu does on the fp32 units, where 128 heads would be bound by them tenfold.
//
// Algorithm: a block of eight warps takes 64 heads of a token and one split of its rows: to the
// rows the heads are what queries are to keys in attention_forward.cu. The absorbed queries stay in
// shared memory; tiles of 32 cache rows come by cp.async into two stages, and serve as keys with
// all their channels and as values with those of the latent. A warp multiplies 16 heads with 16
// rows and leaves the scores in shared memory; then it has the same 16 heads, all 32 rows and half
// of the latent's channels, for the online softmax in registers and the weighted sum.
//
// FLOPs: 2 (2 latent + rope) a head and row, 242 a byte of cache at 128 heads and 512 + 64: bound
// by the tensor cores. Bytes: a row once for each 64 heads, the second time from L2. Launch: 256
// threads, splits x ceil(heads / 64) x queries blocks; 154 + 8 KB of shared memory at 512 + 64.
#include "kernels/cuda/attention_decode_pieces.cuh"

namespace cohort::kernels::COHORT_DEVICE {
namespace {

constexpr int kManyThreads = 256, kManyHeads = 64, kTileOfRows = 32;
/// Of a row of scores in shared memory: eight rows lie in different banks.
constexpr int kScoreStride = kTileOfRows + 8;

/// The queries, two stages of cache rows, the scores.
template <int kRow>
struct ManyMemory {
  static constexpr int kStride = RowTile<kRow>::kStride;
  static constexpr size_t kBytes = sizeof(bf16) * kStride * (kManyHeads + 2 * kTileOfRows) +
                                   sizeof(float) * kManyHeads * kScoreStride;
  bf16* memory;
  __device__ bf16* q() const { return memory; }
  __device__ bf16* rows(int tile) const {
    return memory + (kManyHeads + tile % 2 * kTileOfRows) * kStride;
  }
  __device__ float* scores() const {
    return reinterpret_cast<float*>(memory + (kManyHeads + 2 * kTileOfRows) * kStride);
  }
};

/// A warp's 16 heads, and half of the channels.
template <int kLatent>
struct HeadSums {
  float out[kLatent / 16][4] = {};
  float most[2] = {-INFINITY, -INFINITY};  ///< Of the raw scores.
  float sum[2] = {0, 0};                   ///< This lane's share.
};

/// Scores of 16 heads and 16 rows to shared memory.
template <int kRow>
__device__ void score(const ManyMemory<kRow>& memory, int tile, int head, int row) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  float s[2][4] = {};
#pragma unroll 4
  for (int d = 0; d < kRow / 16; ++d) {
    uint32_t a[4], left[2], right[2];
    load_a<kRow>(a, memory.q(), head, d);
    load_b<kRow>(left, right, memory.rows(tile), row, d);
    mma_m16n8k16(s[0], a, left);
    mma_m16n8k16(s[1], a, right);
  }
#pragma unroll
  for (int n = 0; n < 2; ++n)
#pragma unroll
    for (int half = 0; half < 2; ++half)
      *reinterpret_cast<float2*>(memory.scores() + (head + lane / 4 + half * 8) * kScoreStride +
                                 row + n * 8 + lane % 4 * 2) =
          make_float2(s[n][2 * half], s[n][2 * half + 1]);
}

/// Adds the tile's first `count` rows to the sums of 16 heads.
template <int kRow, int kLatent>
__device__ void add_rows(HeadSums<kLatent>& sums,
                         const ManyMemory<kRow>& memory,
                         int tile,
                         int head,
                         int group,
                         int count,
                         float scale_log2) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  float s[kTileOfRows / 8][4];
#pragma unroll
  for (int n = 0; n < kTileOfRows / 8; ++n)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = n * 8 + lane % 4 * 2;
      const float2 two = *reinterpret_cast<const float2*>(
          memory.scores() + (head + lane / 4 + half * 8) * kScoreStride + row);
      s[n][2 * half] = row < count ? two.x : -INFINITY;
      s[n][2 * half + 1] = row + 1 < count ? two.y : -INFINITY;
    }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float most = sums.most[half];
#pragma unroll
    for (int n = 0; n < kTileOfRows / 8; ++n)
      most = fmaxf(most, fmaxf(s[n][2 * half], s[n][2 * half + 1]));
    most = row_max(most);
    const float shrink = exp2_approx((sums.most[half] - most) * scale_log2);
    sums.most[half] = most;
    sums.sum[half] *= shrink;
#pragma unroll
    for (int n = 0; n < kLatent / 16; ++n)
      sums.out[n][2 * half] *= shrink, sums.out[n][2 * half + 1] *= shrink;
#pragma unroll
    for (int n = 0; n < kTileOfRows / 8; ++n)
#pragma unroll
      for (int r = 2 * half; r < 2 * half + 2; ++r) {
        s[n][r] = exp2_approx(fmaf(s[n][r], scale_log2, -most * scale_log2));
        sums.sum[half] += s[n][r];
      }
  }
#pragma unroll
  for (int k = 0; k < kTileOfRows / 16; ++k) {
    uint32_t p[4];
    sums_as_a(p, s[2 * k], s[2 * k + 1]);
#pragma unroll
    for (int n = 0; n < kLatent / 32; ++n) {
      uint32_t left[2], right[2];
      load_b_transposed<kRow>(left, right, memory.rows(tile), k * 16, group + n);
      mma_m16n8k16(sums.out[2 * n], p, left);
      mma_m16n8k16(sums.out[2 * n + 1], p, right);
    }
  }
}

template <int kLatent, int kRope>
__global__ void __launch_bounds__(kManyThreads) many_heads_kernel(
    const DecodeAttentionProblem p, const bf16* q, const bf16* cache, float* out, float2* softmax) {
  constexpr int kRow = kLatent + kRope, kPieces = kRow / 8;
  COHORT_SHARED(int32_t[kMostSplitRows], list);
  const ManyMemory<kRow> memory{dynamic_shared<bf16>()};
  const int64_t t = blockIdx.z, begin = blockIdx.x * p.rows_per_split;
  const int64_t end = min(begin + p.rows_per_split, p.position[t] + 1);
  if (begin >= end) return;
  const int rows = static_cast<int>(end - begin), warp = static_cast<int>(threadIdx.x) / 32;
  const int first_head = static_cast<int>(blockIdx.y) * kManyHeads;
  if (warp == 0) list_rows(p.spans, p.first_span[t], p.first_span[t + 1], begin, end, list);
  load_tile<kRow, kManyHeads, kManyThreads>(
      q + (t * p.heads + first_head) * kRow, kRow, p.heads - first_head, memory.q());
  __syncthreads();

  const auto load = [&](int tile) {
    for (int i = static_cast<int>(threadIdx.x); i < kTileOfRows * kPieces; i += kManyThreads) {
      const int row = i / kPieces, piece = i % kPieces, at = tile * kTileOfRows + row;
      const bool there = at < rows - (kPlanted<Fault::kTail> ? 1 : 0);
      copy_async_or_zero(memory.rows(tile) + RowTile<kRow>::at(row, piece),
                         cache + list[there ? at : 0] * p.row + piece * 8,
                         there);
    }
    copy_async_commit();
  };
  load(0);
  const int head = warp % 4 * 16, half_of = warp / 4;
  const float scale_log2 = p.scale * kLog2E;
  HeadSums<kLatent> sums;
  for (int tile = 0; tile * kTileOfRows < rows; ++tile) {
    copy_async_wait<0>();
    __syncthreads();
    if ((tile + 1) * kTileOfRows < rows) load(tile + 1);
    score<kRow>(memory, tile, head, half_of * 16);
    __syncthreads();
    add_rows<kRow, kLatent>(
        sums, memory, tile, head, half_of * (kLatent / 32), rows - tile * kTileOfRows, scale_log2);
  }

  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float total = row_sum(sums.sum[half]);
    const int64_t of = first_head + head + lane / 4 + half * 8;
    if (of >= p.heads) continue;
    const int64_t at = (t * p.heads + of) * gridDim.x + blockIdx.x;
    if (half_of == 0 && lane % 4 == 0)
      softmax[at] = make_float2(sums.most[half] * scale_log2, total);
#pragma unroll
    for (int n = 0; n < kLatent / 16; ++n)
      *reinterpret_cast<float2*>(out + at * kLatent + half_of * (kLatent / 2) + n * 8 +
                                 lane % 4 * 2) =
          make_float2(sums.out[n][2 * half], sums.out[n][2 * half + 1]);
  }
}

template <int kLatent, int kRope>
void split_heads(const DecodeAttentionProblem& p,
                 const bf16* q,
                 const bf16* cache,
                 float* sums,
                 float2* softmax,
                 Stream stream) {
  const dim3 blocks(static_cast<unsigned>(splits_of(p)),
                    static_cast<unsigned>((p.heads + kManyHeads - 1) / kManyHeads),
                    static_cast<unsigned>(p.queries));
  launch(many_heads_kernel<kLatent, kRope>,
         Grid(blocks, kManyThreads, ManyMemory<kLatent + kRope>::kBytes, stream),
         p,
         q,
         cache,
         sums,
         softmax);
}

}  // namespace

void split_many_heads(const DecodeAttentionProblem& p,
                      const bf16* q,
                      const bf16* cache,
                      float* sums,
                      float2* softmax,
                      Stream stream) {
  if (p.latent_dim == 512)
    split_heads<512, 64>(p, q, cache, sums, softmax, stream);
  else
    split_heads<256, 32>(p, q, cache, sums, softmax, stream);
}

}  // namespace cohort::kernels::COHORT_DEVICE
