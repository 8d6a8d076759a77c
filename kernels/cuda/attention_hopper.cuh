// What the attention kernels of Hopper share: the tiles of 128 rows that they are made of, and the
// order in which a grid of one block a multiprocessor takes them.
#pragma once
#include "kernels/cuda/attention_pieces.cuh"
#include "kernels/cuda/hopper.cuh"

#if !COHORT_ON_DEVICE || defined(__CUDACC__)
namespace cohort::kernels::COHORT_DEVICE {

constexpr int kHopperTile = 128;

/// Copies rows [token, + rows) of a head into panels, counted at the barrier.
template <int D>
__device__ void copy_panels(
    bf16* tile, const TensorMap& map, int rows, int head, int64_t token, Mbarrier& barrier) {
#pragma unroll
  for (int panel = 0; panel < D / 64; ++panel)
    copy_box(tile + panel * rows * 64, map, panel * 64, head, static_cast<int>(token), barrier);
}

/// The tiles of all runs and heads, dealt to the blocks in turn: run by run, the long ones of a run
/// first, heads in succession, which share keys.
struct TileOfRun {
  int64_t run_first;  ///< First token of the run.
  int count;          ///< Tokens of the run.
  int tile, head;
};
struct TileCursor {
  const int64_t* run_start;
  int num_runs, heads;
  bool late_first;  ///< Late tiles are the long ones.
  int next = static_cast<int>(blockIdx.x), run = 0, before = 0;

  __device__ bool take(TileOfRun& tile) {
    const int pair = next / heads;
    for (; run < num_runs; ++run) {
      tile.run_first = run_start[run];
      tile.count = static_cast<int>(run_start[run + 1] - tile.run_first);
      const int tiles = (tile.count + kHopperTile - 1) / kHopperTile, at = pair - before;
      if (at < tiles) {
        tile.tile = late_first ? tiles - 1 - at : at;
        tile.head = next - pair * heads;
        next += static_cast<int>(gridDim.x);
        return true;
      }
      before += tiles;
    }
    return false;
  }
};

/// One block a multiprocessor, or fewer where there are fewer tiles.
inline unsigned hopper_blocks(const AttentionProblem& p, int64_t heads) {
  const int64_t tiles = p.num_tokens / kHopperTile + p.num_runs;
  return static_cast<unsigned>(std::min<int64_t>(multiprocessors(), tiles * heads));
}

/// Which stage the n-th tile of a ring of kStages goes through, and the parity of its phase there.
template <int kStages>
struct Ring {
  int n = 0;
  __device__ int stage() const { return n % kStages; }
  __device__ unsigned parity() const { return static_cast<unsigned>(n / kStages % 2); }
  /// Of the phase that must end before the stage may be filled again.
  __device__ unsigned parity_before() const { return parity() ^ 1; }
};

/// Word w of lane i of four neighbouring lanes becomes word i of lane w.
__device__ inline void transpose_words(uint32_t (&w)[4]) {
  const unsigned lane = threadIdx.x % 4;
#pragma unroll
  for (int pair = 0; pair < 4; pair += 2) {
    const uint32_t got = __shfl_xor_sync(0xffffffffu, lane % 2 ? w[pair] : w[pair + 1], 1);
    if (lane % 2)
      w[pair] = got;
    else
      w[pair + 1] = got;
  }
#pragma unroll
  for (int first = 0; first < 2; ++first) {
    const uint32_t got = __shfl_xor_sync(0xffffffffu, lane / 2 ? w[first] : w[first + 2], 2);
    if (lane / 2)
      w[first] = got;
    else
      w[first + 2] = got;
  }
}

/// Sums of a warp's sixteen rows, times the factor of each, to rows `stride` apart in memory, 16
/// bytes at a time; rows from `valid` on are not written.
template <int kTiles>
__device__ void write_rows(
    const float (&d)[kTiles][4], const float (&factor)[2], bf16* to, int64_t stride, int valid) {
  static_assert(kTiles % 4 == 0);
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int n = 0; n < kTiles; n += 4)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      uint32_t w[4];
#pragma unroll
      for (int i = 0; i < 4; ++i)
        w[i] =
            pack_bf16x2(d[n + i][2 * half] * factor[half], d[n + i][2 * half + 1] * factor[half]);
      transpose_words(w);
      const int row = lane / 4 + half * 8;
      if (row < valid)
        *reinterpret_cast<uint4*>(to + row * stride + (n + lane % 4) * 8) =
            uint4{w[0], w[1], w[2], w[3]};
    }
}

}  // namespace cohort::kernels::COHORT_DEVICE
#endif
