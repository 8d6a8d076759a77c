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

/// Bytes of keys and values, or of what passes by in their stead, that may be at work at a time:
/// the second-level cache has 50 MB.
constexpr int64_t kSectionBytes = int64_t{32} << 20;

/// The tiles of all runs and heads, dealt to the blocks in turn: run by run; within a run, heads in
/// sections whose passing rows fit the second-level cache; within a section the long tiles first,
/// and heads in succession.
struct TileOfRun {
  int64_t run_first;  ///< First token of the run.
  int count;          ///< Tokens of the run.
  int tile, head;
};
struct TileCursor {
  const int64_t* run_start;
  int num_runs, heads;
  int shared_by;    ///< Heads in succession that want the same passing rows.
  int row_bytes;    ///< Of a token's passing rows for them.
  bool late_first;  ///< Late tiles are the long ones.
  int next = static_cast<int>(blockIdx.x), run = 0, before = 0;

  __device__ bool take(TileOfRun& at) {
    for (; run < num_runs; ++run) {
      at.run_first = run_start[run];
      at.count = static_cast<int>(run_start[run + 1] - at.run_first);
      const int tiles = (at.count + kHopperTile - 1) / kHopperTile, place = next - before;
      if (place < tiles * heads) {
        const int64_t fit = kSectionBytes / (int64_t{at.count} * row_bytes);
        const int section = static_cast<int>(min(max(fit, int64_t{1}) * shared_by, int64_t{heads}));
        const int first = place / (tiles * section) * section, rest = place - tiles * first;
        const int width = min(section, heads - first), tile = rest / width;
        at.tile = late_first ? tiles - 1 - tile : tile;
        at.head = first + rest - tile * width;
        next += static_cast<int>(gridDim.x);
        return true;
      }
      before += tiles * heads;
    }
    return false;
  }
};

/// Throws std::invalid_argument for what the kernels of Hopper cannot do.
inline void check_hopper_problem(const AttentionProblem& p, const char* caller) {
  check_problem(p, caller, has_hopper_attention(p.qk_dim, p.v_dim));
  const int64_t tiles = (p.num_tokens / kHopperTile + p.num_runs) * p.heads;
  if (p.num_tokens > INT32_MAX || tiles > INT32_MAX)
    throw std::invalid_argument(std::string(caller) + ": " + std::to_string(p.num_tokens) +
                                " tokens are more than its counters hold");
  if (!device_is_hopper())
    throw std::invalid_argument(std::string(caller) +
                                ": the device is not of compute capability 9.0");
}

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
