// The stable counting sort of dispatch: which place each (token, expert) pair takes.
//
// Algorithm: pairs are cut into tiles of 1024. (1) A block a tile counts its experts in shared
// memory; integer atomics, so the order does not matter. (2) One block turns the counts into
// starts: a thread an expert runs over the tiles, and a scan over the experts follows. (3) A block
// a tile ranks its pairs: eight warps of 128 neighbouring pairs each; a warp counts, the eight
// counts of an expert become starts, and the warp goes over its pairs again, 32 at a time, where a
// pair's rank among the lanes of equal expert is the number of those below it. So places depend on
// nothing but the pairs.
//
// Bytes: 8 read twice and 16 written a pair, and 12 a tile and expert: 40 us at 3 TB/s for 4 M
// pairs, next to milliseconds for the rows they place. Launch: num_pairs / 1024 blocks of 256
// threads with 4 E and 32 E bytes of shared memory; the middle kernel is one block of E threads.
#include "kernels/cuda/dispatch.cuh"
#include "kernels/cuda/pieces.cuh"

namespace cohort::kernels::COHORT_DEVICE {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32, kSteps = 4, kTile = kThreads * kSteps;
constexpr int kPairsOfWarp = 32 * kSteps;

/// start [tiles, E] := how often each expert occurs in the tile.
__global__ void count_kernel(const int64_t* expert, int64_t num_pairs, int E, int* start) {
  int* counts = dynamic_shared<int>();
  for (int e = static_cast<int>(threadIdx.x); e < E; e += kThreads) counts[e] = 0;
  __syncthreads();
  const int64_t end = kPlanted<Fault::kTail> ? num_pairs - 1 : num_pairs;
  for (int i = 0; i < kSteps; ++i) {
    const int64_t p = static_cast<int64_t>(blockIdx.x) * kTile + i * kThreads + threadIdx.x;
    if (p < end) atomicAdd(&counts[expert[p]], 1);
  }
  __syncthreads();
  for (int e = static_cast<int>(threadIdx.x); e < E; e += kThreads)
    start[static_cast<int64_t>(blockIdx.x) * E + e] = counts[e];
}

/// Exclusive sum over the threads of the block, a multiple of 32 and at most 1024 of them.
__device__ inline int64_t exclusive_sum(int64_t value) {
  COHORT_SHARED(int64_t[32], warp_total);
  const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  int64_t sum = value;
  for (unsigned distance = 1; distance < 32; distance *= 2) {
    const int64_t below = __shfl_up_sync(0xffffffffu, sum, distance);
    if (lane >= distance) sum += below;
  }
  if (lane == 31) warp_total[warp] = sum;
  __syncthreads();
  int64_t before = 0;
  for (unsigned w = 0; w < warp; ++w) before += warp_total[w];
  return before + sum - value;
}

/// Counts by tile to starts by tile, of 64 bits from here: start64 [tiles, E].
__global__ void start_kernel(
    const int* tile_count, int64_t tiles, int E, int64_t* count, int64_t* start) {
  const int e = static_cast<int>(threadIdx.x);
  int64_t total = 0;
  if (e < E)
    for (int64_t tile = 0; tile < tiles; ++tile) total += tile_count[tile * E + e];
  int64_t next = exclusive_sum(total);
  if (e >= E) return;
  count[e] = total;
  for (int64_t tile = 0; tile < tiles; ++tile) {
    start[tile * E + e] = next;
    next += tile_count[tile * E + e];
  }
}

__global__ void place_kernel(const int64_t* expert,
                             int64_t num_pairs,
                             int E,
                             const int64_t* start,
                             int64_t* pair_at,
                             int64_t* place_of) {
  int* seen = dynamic_shared<int>();  // [warps, E]: pairs of the expert before the warp's next ones
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const unsigned lane = threadIdx.x % 32;
  for (int i = static_cast<int>(threadIdx.x); i < kWarps * E; i += kThreads) seen[i] = 0;
  __syncthreads();

  const int64_t first = static_cast<int64_t>(blockIdx.x) * kTile + warp * kPairsOfWarp + lane;
  int mine[kSteps];
  unsigned equal[kSteps];
#pragma unroll
  for (int i = 0; i < kSteps; ++i) {
    const int64_t p = first + i * 32;
    mine[i] = p < num_pairs ? static_cast<int>(expert[p]) : -1;
    if (mine[i] >= 0) atomicAdd(&seen[warp * E + mine[i]], 1);
    equal[i] = __match_any_sync(0xffffffffu, mine[i]);
  }
  __syncthreads();
  for (int e = static_cast<int>(threadIdx.x); e < E; e += kThreads) {
    int before = 0;
    for (int w = 0; w < kWarps; ++w) {
      const int here = seen[w * E + e];
      seen[w * E + e] = before;
      before += here;
    }
  }
  __syncthreads();

#pragma unroll
  for (int i = 0; i < kSteps; ++i) {
    const int e = mine[i];
    const int below = __popc(equal[i] & ((1u << lane) - 1));
    const int rank = e >= 0 ? seen[warp * E + e] + below : 0;
    __syncwarp();  // all have read `seen`
    if (e >= 0) {
      if (below == 0) seen[warp * E + e] += __popc(equal[i]);
      const int64_t place = start[static_cast<int64_t>(blockIdx.x) * E + e] + rank;
      place_of[first + i * 32] = place;
      pair_at[place] = first + i * 32;
    }
    __syncwarp();  // `seen` is as the next step wants it
  }
}

int64_t tiles_of(int64_t num_pairs) { return (num_pairs + kTile - 1) / kTile; }

}  // namespace

size_t sort_pairs_workspace(int64_t num_pairs, int64_t E) {
  return static_cast<size_t>(tiles_of(num_pairs) * E) * (sizeof(int64_t) + sizeof(int));
}

void sort_pairs(const int64_t* expert,
                int64_t num_pairs,
                int64_t E,
                int64_t* count,
                int64_t* pair_at,
                int64_t* place_of,
                void* workspace,
                Stream stream) {
  const int64_t tiles = tiles_of(num_pairs);
  if (tiles == 0) return clear(count, sizeof(int64_t) * static_cast<size_t>(E), stream);
  auto* start = static_cast<int64_t*>(workspace);
  auto* tile_count = reinterpret_cast<int*>(start + tiles * E);
  const int experts = static_cast<int>(E);
  const auto row = static_cast<size_t>(E) * sizeof(int);
  const auto blocks = static_cast<unsigned>(tiles);
  launch(count_kernel, Grid(blocks, kThreads, row, stream), expert, num_pairs, experts, tile_count);
  launch(start_kernel,
         Grid(1, static_cast<unsigned>((E + 31) / 32 * 32), 0, stream),
         tile_count,
         tiles,
         experts,
         count,
         start);
  launch(place_kernel,
         Grid(blocks, kThreads, row * kWarps, stream),
         expert,
         num_pairs,
         experts,
         start,
         pair_at,
         place_of);
}

}  // namespace cohort::kernels::COHORT_DEVICE
