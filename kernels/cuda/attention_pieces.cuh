// What the attention kernels share: tiles of bf16 rows in shared memory, how they are filled from
// tensors [tokens, heads, dim], and how they become the fragments of mma_m16n8k16.
#pragma once
#include <stdexcept>
#include <string>

#include "kernels/cuda/attention_forward.cuh"
#include "kernels/cuda/pieces.cuh"

#if !COHORT_ON_DEVICE || defined(__CUDACC__)
namespace cohort::kernels::COHORT_DEVICE {

constexpr float kLog2E = 1.4426950408889634f, kLn2 = 0.6931471805599453f;

/// Rows of D bf16 such that the eight 16-byte pieces that an ldmatrix reads from eight consecutive
/// rows lie in different banks: pieces permuted by the row, or, where a row is not a multiple of
/// 128 bytes, rows padded to an odd number of pieces.
template <int D>
struct RowTile {
  static_assert(D % 16 == 0);
  static constexpr bool kPermuted = D % 64 == 0;
  static constexpr int kStride = kPermuted ? D : D + 8;
  /// Element where piece `piece` (8 elements) of `row` begins.
  __device__ static int at(int row, int piece) {
    return row * kStride + (kPermuted ? piece ^ (row & 7) : piece) * 8;
  }
  static constexpr size_t bytes(int rows) { return sizeof(bf16) * rows * kStride; }
};

/// Begins to copy rows [0, kRows) of D elements, `stride` apart in `from`, into a tile; rows from
/// `valid` on become zeros. For all kThreads threads of the block. valid >= 1.
template <int D, int kRows, int kThreads>
__device__ void load_tile(const bf16* from, int64_t stride, int64_t valid, bf16* tile) {
  constexpr int kPieces = D / 8;
#pragma unroll
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kPieces; i += kThreads) {
    const int row = i / kPieces, piece = i % kPieces;
    const bool there = row < valid;
    copy_async_or_zero(
        &tile[RowTile<D>::at(row, piece)], from + (there ? row : 0) * stride + piece * 8, there);
  }
}

/// Fragment a of rows [row, row + 16), columns [16 k, 16 k + 16).
template <int D>
__device__ void load_a(uint32_t (&a)[4], const bf16* tile, int row, int k) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  ldmatrix_x4(a, &tile[RowTile<D>::at(row + lane % 16, 2 * k + lane / 16)]);
}
/// The same of the transposed tile: rows of a are columns [16 column, + 16), and its columns are
/// rows [row, + 16).
template <int D>
__device__ void load_a_transposed(uint32_t (&a)[4], const bf16* tile, int column, int row) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  ldmatrix_x4_transposed(
      a, &tile[RowTile<D>::at(row + lane / 16 * 8 + lane % 8, 2 * column + lane / 8 % 2)]);
}
/// Two fragments b whose columns are rows [row, row + 8) and [row + 8, row + 16) of the tile, and
/// whose rows are its columns [16 k, 16 k + 16): for products with the transposed tile.
template <int D>
__device__ void load_b(
    uint32_t (&first)[2], uint32_t (&second)[2], const bf16* tile, int row, int k) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  uint32_t w[4];
  ldmatrix_x4(w, &tile[RowTile<D>::at(row + lane / 16 * 8 + lane % 8, 2 * k + lane / 8 % 2)]);
  first[0] = w[0], first[1] = w[1], second[0] = w[2], second[1] = w[3];
}
/// Two fragments b whose rows are rows [row, row + 16) of the tile and whose columns are its
/// columns [16 n, + 8) and [16 n + 8, + 8): for products with the tile itself.
template <int D>
__device__ void load_b_transposed(
    uint32_t (&first)[2], uint32_t (&second)[2], const bf16* tile, int row, int n) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  uint32_t w[4];
  ldmatrix_x4_transposed(w, &tile[RowTile<D>::at(row + lane % 16, 2 * n + lane / 16)]);
  first[0] = w[0], first[1] = w[1], second[0] = w[2], second[1] = w[3];
}

/// Two neighbouring sums d [16, 8] as one fragment a [16, 16].
__device__ inline void sums_as_a(uint32_t (&a)[4],
                                 const float (&left)[4],
                                 const float (&right)[4]) {
  a[0] = pack_bf16x2(left[0], left[1]);
  a[1] = pack_bf16x2(left[2], left[3]);
  a[2] = pack_bf16x2(right[0], right[1]);
  a[3] = pack_bf16x2(right[2], right[3]);
}

/// Over the four lanes that hold a row of a sum.
__device__ inline float row_max(float v) {
  v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, 1));
  return fmaxf(v, __shfl_xor_sync(0xffffffffu, v, 2));
}
__device__ inline float row_sum(float v) {
  v += __shfl_xor_sync(0xffffffffu, v, 1);
  return v + __shfl_xor_sync(0xffffffffu, v, 2);
}

/// The online softmax of a lane's two rows, lane / 4 and lane / 4 + 8 of sixteen.
struct RunningSoftmax {
  float most[2] = {-INFINITY, -INFINITY};  ///< Of the raw scores.
  float sum[2] = {0, 0};                   ///< This lane's share.

  /// Scores become exp2(scale_log2 (score - most)), of which the first exists in each row by now;
  /// what was added under an older maximum is to be multiplied by shrink.
  template <int kTiles>
  __device__ void add(float (&s)[kTiles][4], float scale_log2, float (&shrink)[2]) {
    float scaled_most[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float now = most[half];
#pragma unroll
      for (int n = 0; n < kTiles; ++n) now = fmaxf(now, fmaxf(s[n][2 * half], s[n][2 * half + 1]));
      now = row_max(now);
      shrink[half] = exp2_approx((most[half] - now) * scale_log2);
      most[half] = now;
      scaled_most[half] = now * scale_log2;
      sum[half] *= shrink[half];
    }
#pragma unroll
    for (int n = 0; n < kTiles; ++n)
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        s[n][r] = exp2_approx(fmaf(s[n][r], scale_log2, -scaled_most[r / 2]));
        sum[r / 2] += s[n][r];
      }
  }

  /// 1 / the rows' sums, and what the softmax divides by as a logarithm.
  __device__ void finish(float scale, float (&inverse)[2], float (&lse)[2]) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float all = row_sum(sum[half]);
      inverse[half] = 1.0f / all;
      lse[half] = most[half] * scale + logf(all);
    }
  }
};

/// Sums of two rows times the factor of each.
template <int kTiles>
__device__ void scale_rows(float (&d)[kTiles][4], const float (&factor)[2]) {
#pragma unroll
  for (int n = 0; n < kTiles; ++n)
#pragma unroll
    for (int r = 0; r < 4; ++r) d[n][r] *= factor[r / 2];
}

/// Scores of keys [first_key, + 8 kTiles) beyond the lane's queries, of which the first is
/// `query`, are -infinity.
template <int kTiles>
__device__ void mask_later_keys(float (&s)[kTiles][4], int first_key, int query) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int n = 0; n < kTiles; ++n)
#pragma unroll
    for (int r = 0; r < 4; ++r)
      if (first_key + n * 8 + lane % 4 * 2 + r % 2 >
          query + r / 2 * 8 + (kPlanted<Fault::kMask> ? 1 : 0))
        s[n][r] = -INFINITY;
}

/// Sums d [16, 8 kTiles], times the factor of their row half, as bf16 to rows [row, + 16) of a
/// tile, from its piece `piece` (8 channels) on; what would lie beyond the tile's rows is dropped.
template <int D, int kTiles>
__device__ void put_rows(
    const float (&d)[kTiles][4], const float (&factor)[2], bf16* tile, int row, int piece) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int n = 0; n < kTiles; ++n)
#pragma unroll
    for (int half = 0; half < 2; ++half)
      if (piece + n < D / 8)
        *reinterpret_cast<uint32_t*>(
            &tile[RowTile<D>::at(row + lane / 4 + half * 8, piece + n) + lane % 4 * 2]) =
            pack_bf16x2(d[n][2 * half] * factor[half], d[n][2 * half + 1] * factor[half]);
}

/// Sixteen rows of sums leave the warp: through its own rows [row, + 16) of a tile in shared
/// memory, so that they are written in pieces of 16 bytes. Rows from `valid` on are not written;
/// to: where row 0 of the sixteen goes.
template <int D>
__device__ void store_rows(const float (&d)[D / 8][4],
                           const float (&factor)[2],
                           bf16* tile,
                           int row,
                           bf16* to,
                           int64_t stride,
                           int64_t valid) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  put_rows<D>(d, factor, tile, row, 0);
  __syncwarp();
#pragma unroll
  for (int i = lane; i < 16 * (D / 8); i += 32) {
    const int r = i / (D / 8), piece = i % (D / 8);
    if (r < valid)
      *reinterpret_cast<uint4*>(to + r * stride + piece * 8) =
          *reinterpret_cast<const uint4*>(&tile[RowTile<D>::at(row + r, piece)]);
  }
}

/// A tile to memory, by all kThreads threads of the block; rows from `valid` on are not written.
template <int D, int kRows, int kThreads>
__device__ void store_tile(const bf16* tile, bf16* to, int64_t stride, int64_t valid) {
  constexpr int kPieces = D / 8;
#pragma unroll
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kPieces; i += kThreads) {
    const int row = i / kPieces, piece = i % kPieces;
    if (row < valid)
      *reinterpret_cast<uint4*>(to + row * stride + piece * 8) =
          *reinterpret_cast<const uint4*>(&tile[RowTile<D>::at(row, piece)]);
  }
}

/// Calls work.run<qk_dim, v_dim>(); false when Hopper has no kernel for these sizes.
template <class Work>
bool at_hopper_head_sizes(int64_t qk_dim, int64_t v_dim, Work&& work) {
  if (qk_dim == 192 && v_dim == 128) return work.template run<192, 128>(), true;
  if (qk_dim == 128 && v_dim == 128) return work.template run<128, 128>(), true;
  if (qk_dim == 64 && v_dim == 64) return work.template run<64, 64>(), true;
  return false;
}
/// The same of the portable kernels.
template <class Work>
bool at_head_sizes(int64_t qk_dim, int64_t v_dim, Work&& work) {
  if (at_hopper_head_sizes(qk_dim, v_dim, work)) return true;
  if (qk_dim == 48 && v_dim == 32) return work.template run<48, 32>(), true;
  if (qk_dim == 32 && v_dim == 32) return work.template run<32, 32>(), true;
  if (qk_dim == 16 && v_dim == 16) return work.template run<16, 16>(), true;
  return false;
}

/// Throws std::invalid_argument unless `there` and the heads divide; `caller` is named.
inline void check_problem(const AttentionProblem& p, const char* caller, bool there) {
  if (p.num_runs < 0 || p.heads < 1 || p.kv_heads < 1 || p.heads % p.kv_heads != 0 ||
      !(p.scale > 0))
    throw std::invalid_argument(std::string(caller) + ": " + std::to_string(p.heads) +
                                " heads over " + std::to_string(p.kv_heads) + " with scale " +
                                std::to_string(p.scale));
  if (!there)
    throw std::invalid_argument(std::string(caller) + ": no kernel for heads of " +
                                std::to_string(p.qk_dim) + " and " + std::to_string(p.v_dim));
}

struct Nothing {
  template <int kQk, int kV>
  void run() const {}
};

/// Runs the portable kernel of a problem's head sizes.
template <class Work>
void with_head_sizes(const AttentionProblem& p, const char* caller, Work&& work) {
  check_problem(p, caller, at_head_sizes(p.qk_dim, p.v_dim, Nothing{}));
  at_head_sizes(p.qk_dim, p.v_dim, work);
}

}  // namespace cohort::kernels::COHORT_DEVICE
#endif
