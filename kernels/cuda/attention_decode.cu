// One query a token over the latent cache, split over the sequence (Flash-Decoding, Dao et al.
// 2023; absorbed MLA: DeepSeek-V2, arXiv:2405.04434).
//
// Algorithm: a block takes 16 heads of a token and one split of its rows. One warp turns the spans
// into the list of the split's cache rows; tiles of rows then come by cp.async into two stages. A
// warp has two heads. Its lanes lie across the channels: a row goes from shared memory to registers
// once and serves both the scores and the weighted sum, since the values are the row's own latent.
// The softmax is online (Milakov and Gimelshein, arXiv:1805.02867), row by row. Each split leaves
// an unnormalised sum, its maximum and its denominator; a second kernel adds the splits in their
// order.
//
// Bytes: a row of latent + rope elements once from memory for each 16 heads of a token (from L2 but
// the first time), and heads x (latent + 2) fp32 written and read for each split: 22 % of the rows'
// bytes at 128 heads, bf16 and 1024 rows a split. FLOPs: 2 (2 latent + rope) a head and row, on the
// fp32 units: at few heads the memory is the limit, at many the arithmetic would be, and bf16 goes
// to the tensor cores instead (attention_decode_heads.cu). Launch: 256 threads, splits x ceil(heads
// / 16) x queries blocks; shared memory 2 x 36 KB + 8 KB.
#include "kernels/cuda/attention_decode.cuh"

#include <stdexcept>
#include <string>
#include <type_traits>

#include "kernels/cuda/attention_decode_pieces.cuh"

namespace cohort::kernels::COHORT_DEVICE {
namespace {

constexpr int kThreads = 256, kHeadsOfWarp = 2, kHeadsOfBlock = kThreads / 32 * kHeadsOfWarp;

/// A lane's channels of a row: pieces lane, lane + 32, ... of the latent and its share of the rope.
template <class T, int kLatent, int kRope>
__device__ void load_channels(const T* row,
                              float (&latent)[kLatent / 32],
                              float (&rope)[kRope / 32]) {
  constexpr int N = kWide<T>;
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int i = 0; i < kLatent / 32 / N; ++i) {
    float piece[N];
    load_piece(row + (i * 32 + lane) * N, piece);
#pragma unroll
    for (int j = 0; j < N; ++j) latent[i * N + j] = piece[j];
  }
#pragma unroll
  for (int i = 0; i < kRope / 32; ++i) {
    float one[1];
    load_piece(row + kLatent + i * 32 + lane, one);
    rope[i] = one[0];
  }
}

template <class T, int kLatent, int kRope>
__global__ void __launch_bounds__(kThreads) split_kernel(
    const DecodeAttentionProblem p, const T* q, const T* cache, float* sums, float2* softmax) {
  constexpr int N = kWide<T>, kRow = kLatent + kRope, kPieces = kRow / N;
  constexpr int kTile = 64 / static_cast<int>(sizeof(T));
  static_assert(kLatent % (32 * N) == 0 && kRope % 32 == 0);
  COHORT_SHARED(int32_t[kMostSplitRows], list);
  T* stage = dynamic_shared<T>();
  const int64_t t = blockIdx.z, begin = blockIdx.x * p.rows_per_split;
  const int64_t end = min(begin + p.rows_per_split, p.position[t] + 1);
  if (begin >= end) return;
  const int rows = static_cast<int>(end - begin), warp = static_cast<int>(threadIdx.x) / 32;
  if (warp == 0) list_rows(p.spans, p.first_span[t], p.first_span[t + 1], begin, end, list);
  __syncthreads();

  const auto load = [&](int tile) {
    for (int i = static_cast<int>(threadIdx.x); i < kTile * kPieces; i += kThreads) {
      const int row = tile * kTile + i / kPieces, piece = i % kPieces;
      const bool there = row < rows - (kPlanted<Fault::kTail> ? 1 : 0);
      copy_async_or_zero(stage + ((tile % 2 * kTile + i / kPieces) * kRow + piece * N),
                         cache + list[there ? row : 0] * p.row + piece * N,
                         there);
    }
    copy_async_commit();
  };
  load(0);

  const int64_t head = blockIdx.y * kHeadsOfBlock + warp * kHeadsOfWarp;
  float query[kHeadsOfWarp][kLatent / 32], query_rope[kHeadsOfWarp][kRope / 32];
  float sum[kHeadsOfWarp][kLatent / 32] = {}, most[kHeadsOfWarp], total[kHeadsOfWarp];
#pragma unroll
  for (int h = 0; h < kHeadsOfWarp; ++h) {
    const int64_t of = t * p.heads + min(head + h, p.heads - 1);
    load_channels<T, kLatent, kRope>(q + of * kRow, query[h], query_rope[h]);
    most[h] = -INFINITY, total[h] = 0;
  }
  const float scale = p.scale * kLog2E;
  for (int tile = 0; tile * kTile < rows; ++tile) {
    copy_async_wait<0>();
    __syncthreads();
    if ((tile + 1) * kTile < rows) load(tile + 1);
    const int count = min(kTile, rows - tile * kTile);
    for (int r = 0; r < count; ++r) {
      float latent[kLatent / 32], rope[kRope / 32];
      load_channels<T, kLatent, kRope>(stage + (tile % 2 * kTile + r) * kRow, latent, rope);
#pragma unroll
      for (int h = 0; h < kHeadsOfWarp; ++h) {
        float dot = 0;
#pragma unroll
        for (int i = 0; i < kLatent / 32; ++i) dot = fmaf(query[h][i], latent[i], dot);
#pragma unroll
        for (int i = 0; i < kRope / 32; ++i) dot = fmaf(query_rope[h][i], rope[i], dot);
        const float score = warp_sum(dot) * scale, now = fmaxf(most[h], score);
        const float shrink = exp2_approx(most[h] - now), weight = exp2_approx(score - now);
        most[h] = now;
        total[h] = fmaf(total[h], shrink, weight);
#pragma unroll
        for (int i = 0; i < kLatent / 32; ++i)
          sum[h][i] = fmaf(sum[h][i], shrink, weight * latent[i]);
      }
    }
  }
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int h = 0; h < kHeadsOfWarp; ++h) {
    if (head + h >= p.heads) break;
    const int64_t at = (t * p.heads + head + h) * gridDim.x + blockIdx.x;
    if (lane == 0) softmax[at] = make_float2(most[h], total[h]);
#pragma unroll
    for (int i = 0; i < kLatent / 32 / N; ++i)
#pragma unroll
      for (int j = 0; j < N; j += 4) {
        float four[4];
#pragma unroll
        for (int k = 0; k < 4; ++k) four[k] = sum[h][i * N + j + k];
        store_piece(sums + at * kLatent + (i * 32 + lane) * N + j, four);
      }
  }
}

/// A block for each head of each token, four channels a thread.
template <class T, int kLatent>
__global__ void combine_splits_kernel(const DecodeAttentionProblem p,
                                      int64_t splits,
                                      const float* sums,
                                      const float2* softmax,
                                      T* out) {
  const int64_t of = blockIdx.x, there = p.position[of / p.heads] / p.rows_per_split + 1;
  const int d = static_cast<int>(threadIdx.x) * 4;
  float most = -INFINITY, total = 0, sum[4] = {};
  for (int64_t s = 0; s < there; ++s) most = fmaxf(most, softmax[of * splits + s].x);
  for (int64_t s = 0; s < there; ++s) {
    const float2 of_split = softmax[of * splits + s];
    const float weight = exp2_approx(of_split.x - most);
    total = fmaf(weight, of_split.y, total);
    float piece[4];
    load_piece(sums + (of * splits + s) * kLatent + d, piece);
#pragma unroll
    for (int i = 0; i < 4; ++i) sum[i] = fmaf(weight, piece[i], sum[i]);
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float one[1] = {sum[i] / total};
    store_piece(out + of * kLatent + d + i, one);
  }
}

template <class T, int kLatent>
void combine_splits(const DecodeAttentionProblem& p,
                    const float* sums,
                    const float2* softmax,
                    T* out,
                    Stream stream) {
  const int64_t splits = splits_of(p);
  launch(combine_splits_kernel<T, kLatent>,
         Grid(static_cast<unsigned>(p.queries * p.heads), kLatent / 4, 0, stream),
         p,
         splits,
         sums,
         softmax,
         out);
}

template <class T, int kLatent, int kRope>
void decode(const DecodeAttentionProblem& p,
            const T* q,
            const T* cache,
            T* out,
            void* workspace,
            Stream stream) {
  const int64_t splits = splits_of(p);
  float* sums = static_cast<float*>(workspace);
  float2* softmax = reinterpret_cast<float2*>(sums + p.queries * p.heads * splits * kLatent);
  if constexpr (std::is_same_v<T, bf16>) {
    if (p.heads > kHeadsOfBlock) {
      split_many_heads(p, q, cache, sums, softmax, stream);
      return combine_splits<T, kLatent>(p, sums, softmax, out, stream);
    }
  }
  const dim3 blocks(static_cast<unsigned>(splits),
                    static_cast<unsigned>((p.heads + kHeadsOfBlock - 1) / kHeadsOfBlock),
                    static_cast<unsigned>(p.queries));
  launch(split_kernel<T, kLatent, kRope>,
         Grid(blocks, kThreads, 2 * 64 * (kLatent + kRope), stream),
         p,
         q,
         cache,
         sums,
         softmax);
  combine_splits<T, kLatent>(p, sums, softmax, out, stream);
}

}  // namespace

size_t attention_decode_workspace(const DecodeAttentionProblem& p) {
  return sizeof(float) *
         static_cast<size_t>(p.queries * p.heads * splits_of(p) * (p.latent_dim + 2));
}

bool has_decode_kernel(int64_t latent_dim, int64_t rope_dim) {
  return (latent_dim == 512 && rope_dim == 64) || (latent_dim == 256 && rope_dim == 32);
}

template <class T>
void attention_decode(const DecodeAttentionProblem& p,
                      const T* q,
                      const T* cache,
                      T* out,
                      void* workspace,
                      Stream stream) {
  if (p.queries == 0) return;
  if (!has_decode_kernel(p.latent_dim, p.rope_dim))
    throw std::invalid_argument("attention_decode: no kernel for latents of " +
                                std::to_string(p.latent_dim) + " and " +
                                std::to_string(p.rope_dim));
  if (p.rows_per_split < 1 || p.rows_per_split > kMostSplitRows ||
      !in_wide_pieces<T>(p.row, q, cache))
    throw std::invalid_argument("attention_decode: rows of " + std::to_string(p.row) +
                                " elements, " + std::to_string(p.rows_per_split) + " a split");
  if (p.latent_dim == 512 && p.rope_dim == 64)
    return decode<T, 512, 64>(p, q, cache, out, workspace, stream);
  decode<T, 256, 32>(p, q, cache, out, workspace, stream);
}

template void attention_decode(
    const DecodeAttentionProblem&, const float*, const float*, float*, void*, Stream);
template void attention_decode(
    const DecodeAttentionProblem&, const bf16*, const bf16*, bf16*, void*, Stream);

}  // namespace cohort::kernels::COHORT_DEVICE
