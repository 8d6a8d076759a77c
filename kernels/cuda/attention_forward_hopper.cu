// Causal attention within documents, forward, for compute capability 9.0: FlashAttention-3 (Shah et
// al., arXiv:2407.08608, algorithm 1 and section 3.2) with wgmma and TMA.
//
// Algorithm: one block a multiprocessor takes tiles of 128 queries of one head, one after another.
// A producer thread brings queries and tiles of 128 keys and values by TMA into rings of two
// stages; two groups of four warps have 64 queries each. A group computes S_j = q k_j^T while
// P_{j-1} v_{j-1} is still being added, then turns S_j into probabilities (RunningSoftmax),
// multiplies what was added under an older maximum, and goes on: the tensor cores have work while
// the softmax runs. Probabilities stay in registers: sums of one wgmma, rounded to bf16, are the
// left side of the next. mbarriers say when a stage is full, and, an arrival a warp, when it is
// empty again, so the producer is a tile ahead, over the ends of tiles of queries too: their
// successors alone wait for their place. The producer's group gives up its registers to the others.
//
// The order of sums begins at the run's first key whatever the batch, and no atomics: bits are the
// run's own, but differ from those of the portable kernel, whose tiles are of 64. Keys beyond the
// end of a run are those of the next, which causality hides; zeros beyond the last token.
// Departures from the paper: key tiles are visited first to last; the two groups are not made to
// take turns (its ping-pong schedule); the first group computes the half of the diagonal tile that
// it hides. That the softmax comes before the wait for P v in the machine code too is what
// finish_before_wait is for; tests/hopper_build_test.py sees that ptxas adds no waits.
//
// FLOPs: 2 (Dqk + Dv) a query, head and visible key. Bytes, a head: k and v of a run n / 256 times
// on average, from L2 but the first time (TileCursor); at 192/128 a tile of 128 x 128 is 10.5 MFLOP
// for 80 KB, 131 FLOP a byte of L2. Launch: 384 threads, a block a multiprocessor; 4 (Dqk + Dv) + 2
// Dqk times 128 bytes of shared memory, 208 KB at 192/128.
#include "kernels/cuda/attention_forward.cuh"

#include "kernels/cuda/attention_hopper.cuh"

namespace cohort::kernels::COHORT_DEVICE {
namespace {

constexpr int kTile = kHopperTile, kStages = 2;
constexpr int kGroups = 2, kThreads = 128 * (kGroups + 1);

struct Barriers {
  Mbarrier q_empty, k_full[kStages], k_empty[kStages], v_full[kStages], v_empty[kStages];
};

template <int kQk, int kV>
struct Tiles {
  static constexpr int kKeyTile = kTile * kQk, kValueTile = kTile * kV;
  static constexpr size_t kBytes = sizeof(bf16) * (kKeyTile + kStages * (kKeyTile + kValueTile));
  bf16* q;
  __device__ bf16* k(int stage) const { return q + kKeyTile * (1 + stage); }
  __device__ bf16* v(int stage) const { return q + kKeyTile * (1 + kStages) + kValueTile * stage; }
};

struct ForwardOperands {
  const int64_t* run_start;
  int64_t num_tokens;
  int num_runs, heads, kv_heads;
  float scale;
  bf16* out;
  float* lse;
  template <int kRow>
  __device__ TileCursor tiles_of() const {
    return {run_start, num_runs, heads, heads / kv_heads, kRow * int{sizeof(bf16)}, true};
  }
};

#if COHORT_HAS_HOPPER

/// The one thread that copies.
template <int kQk, int kV>
__device__ void produce(const ForwardOperands& of,
                        const TensorMap& q,
                        const TensorMap& k,
                        const TensorMap& v,
                        const Tiles<kQk, kV>& tiles,
                        Barriers& barriers) {
  Ring<1> queries;
  Ring<kStages> keys, values;
  TileCursor cursor = of.tiles_of<kQk + kV>();
  TileOfRun at;
  for (; cursor.take(at); ++queries.n) {
    const int kv_head = at.head * of.kv_heads / of.heads;
    // The queries are counted with the first keys, which need not wait for their place.
    const auto copy_keys = [&](int j) {
      const int stage = keys.stage();
      Mbarrier& full = barriers.k_full[stage];
      mbarrier_wait(barriers.k_empty[stage], keys.parity_before());
      mbarrier_arrive_expect(full, (j == 0 ? 2 : 1) * sizeof(bf16) * Tiles<kQk, kV>::kKeyTile);
      copy_panels<kQk>(tiles.k(stage), k, kTile, kv_head, at.run_first + j * kTile, full);
      if (j == 0) {
        mbarrier_wait(barriers.q_empty, queries.parity_before());
        copy_panels<kQk>(tiles.q, q, kTile, at.head, at.run_first + at.tile * kTile, full);
      }
      ++keys.n;
    };
    copy_keys(0);
    for (int j = 0; j <= at.tile; ++j) {
      if (j < at.tile) copy_keys(j + 1);
      const int stage = values.stage();
      mbarrier_wait(barriers.v_empty[stage], values.parity_before());
      mbarrier_arrive_expect(barriers.v_full[stage], sizeof(bf16) * Tiles<kQk, kV>::kValueTile);
      copy_panels<kV>(
          tiles.v(stage), v, kTile, kv_head, at.run_first + j * kTile, barriers.v_full[stage]);
      ++values.n;
    }
  }
}

/// A group of four warps and the 64 queries that it has of each tile.
template <int kQk, int kV>
struct Group {
  const ForwardOperands& of;
  const Tiles<kQk, kV>& tiles;
  Barriers& barriers;
  int warp;  ///< 0 to 7, of those that compute.
  Ring<kStages> keys, values;
  float s[kTile / 8][4];
  uint32_t p[kTile / 16][4];
  float out[kV / 8][4];

  __device__ void arrive(Mbarrier& barrier) const {
    if (threadIdx.x % 32 == 0) mbarrier_arrive(barrier);
  }

  /// Begins s = q k^T of the next tile of keys.
  __device__ void begin_scores() {
    mbarrier_wait(barriers.k_full[keys.stage()], keys.parity());
    keep_in_place(s);
    wgmma_fence();
#pragma unroll
    for (int d = 0; d < kQk / 16; ++d)
      wgmma(s,
            panel_descriptor(tiles.q, kTile, warp / 4 * 64, d),
            panel_descriptor(tiles.k(keys.stage()), kTile, 0, d),
            d > 0);
    wgmma_commit();
  }
  __device__ void end_scores() {
    keep_in_place(s);
    arrive(barriers.k_empty[keys.stage()]);
    ++keys.n;
  }
  /// Begins out += p v of the next tile of values.
  __device__ void begin_sums() {
    mbarrier_wait(barriers.v_full[values.stage()], values.parity());
    keep_in_place(out);
    keep_in_place(p);
    wgmma_fence();
#pragma unroll
    for (int key = 0; key < kTile / 16; ++key)
      wgmma_across(out, p[key], panel_descriptor(tiles.v(values.stage()), kTile, key * 16, 0));
    wgmma_commit();
  }
  __device__ void end_sums() {
    wgmma_wait<0>();
    keep_in_place(out);
    keep_in_place(p);
    arrive(barriers.v_empty[values.stage()]);
    ++values.n;
  }
  __device__ void keep_probabilities() {
#pragma unroll
    for (int key = 0; key < kTile / 16; ++key) sums_as_a(p[key], s[2 * key], s[2 * key + 1]);
  }

  /// This group's queries are all beyond the end of the run. It waits for what it does not want, so
  /// that each arrival is in the phase that it is meant for: copies may end in any order.
  __device__ void pass(int tile) {
    for (int j = 0; j <= tile; ++j, ++keys.n, ++values.n) {
      mbarrier_wait(barriers.k_full[keys.stage()], keys.parity());
      arrive(barriers.k_empty[keys.stage()]);
      mbarrier_wait(barriers.v_full[values.stage()], values.parity());
      arrive(barriers.v_empty[values.stage()]);
    }
    arrive(barriers.q_empty);
  }

  __device__ void attend(const TileOfRun& at) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int row = warp * 16;  // of the tile
    const int valid = at.count - at.tile * kTile - row;
    if (at.count - at.tile * kTile <= row / 64 * 64) return pass(at.tile);
    const float scale_log2 = of.scale * kLog2E;
    RunningSoftmax softmax;
    float shrink[2];
#pragma unroll
    for (int n = 0; n < kV / 8; ++n) out[n][0] = out[n][1] = out[n][2] = out[n][3] = 0;
    begin_scores();
    wgmma_wait<0>();
    end_scores();
    if (at.tile == 0) mask_later_keys(s, 0, row + lane / 4);
    softmax.add(s, scale_log2, shrink);
    keep_probabilities();
    for (int j = 1; j <= at.tile; ++j) {
      begin_scores();
      begin_sums();
      if (!kPlanted<Fault::kCopyWait>) wgmma_wait<1>();
      end_scores();
      if (j == at.tile) mask_later_keys(s, 0, row + lane / 4);
      softmax.add(s, scale_log2, shrink);
      finish_before_wait(softmax.sum[0] + softmax.sum[1], barriers.q_empty);
      end_sums();
      scale_rows(out, shrink);
      keep_probabilities();
    }
    arrive(barriers.q_empty);
    begin_sums();
    end_sums();

    float inverse[2], row_lse[2];
    softmax.finish(of.scale, inverse, row_lse);
    const int64_t token = at.run_first + at.tile * kTile + row;
    if (lane % 4 == 0) {
      float* to = of.lse + at.head * of.num_tokens + token + lane / 4;
      if (lane / 4 < valid) to[0] = row_lse[0];
      if (lane / 4 + 8 < valid) to[8] = row_lse[1];
    }
    write_rows(out,
               inverse,
               of.out + (token * of.heads + at.head) * kV,
               int64_t{of.heads} * kV,
               valid - (kPlanted<Fault::kTail> ? 1 : 0));
  }
};
#endif

template <int kQk, int kV>
__global__ void __launch_bounds__(kThreads, 1)
    forward_hopper_kernel(const __grid_constant__ TensorMap q,
                          const __grid_constant__ TensorMap k,
                          const __grid_constant__ TensorMap v,
                          const ForwardOperands of) {
#if COHORT_HAS_HOPPER
  COHORT_SHARED(Barriers, barriers);
  const Tiles<kQk, kV> tiles{dynamic_shared<bf16>()};
  if (threadIdx.x == 0) {
    constexpr unsigned kWarps = 4 * kGroups;
    mbarrier_init(barriers.q_empty, kWarps);
    for (int stage = 0; stage < kStages; ++stage) {
      mbarrier_init(barriers.k_full[stage], 1);
      mbarrier_init(barriers.k_empty[stage], kWarps);
      mbarrier_init(barriers.v_full[stage], 1);
      mbarrier_init(barriers.v_empty[stage], kWarps);
    }
    mbarrier_init_fence();
  }
  __syncthreads();
  if (threadIdx.x < 128) {
    give_registers<40>();
    if (threadIdx.x == 0) produce(of, q, k, v, tiles, barriers);
  } else {
    take_registers<232>();
    Group<kQk, kV> group{of, tiles, barriers, warp_of_block() - 4, {}, {}, {}, {}, {}};
    TileCursor cursor = of.tiles_of<kQk + kV>();
    TileOfRun at;
    while (cursor.take(at)) group.attend(at);
  }
#elif defined(__CUDA_ARCH__)
  __trap();
#endif
}

struct ForwardHopper {
  const AttentionProblem& p;
  const bf16 *q, *k, *v;
  bf16* out;
  float* lse;
  Stream stream;
  template <int kQk, int kV>
  void run() const {
    launch(forward_hopper_kernel<kQk, kV>,
           Grid(hopper_blocks(p, p.heads), kThreads, Tiles<kQk, kV>::kBytes, stream),
           tensor_map(q, p.num_tokens, p.heads, kQk, kTile),
           tensor_map(k, p.num_tokens, p.kv_heads, kQk, kTile),
           tensor_map(v, p.num_tokens, p.kv_heads, kV, kTile),
           ForwardOperands{p.run_start,
                           p.num_tokens,
                           static_cast<int>(p.num_runs),
                           static_cast<int>(p.heads),
                           static_cast<int>(p.kv_heads),
                           p.scale,
                           out,
                           lse});
  }
};

}  // namespace

bool has_hopper_attention(int64_t qk_dim, int64_t v_dim) {
  return at_hopper_head_sizes(qk_dim, v_dim, Nothing{});
}

void attention_forward_hopper(const AttentionProblem& problem,
                              const bf16* q,
                              const bf16* k,
                              const bf16* v,
                              bf16* out,
                              float* lse,
                              Stream stream) {
  if (problem.num_runs == 0 || problem.longest_run == 0) return;
  check_problem(
      problem, "attention_forward_hopper", has_hopper_attention(problem.qk_dim, problem.v_dim));
  at_hopper_head_sizes(
      problem.qk_dim, problem.v_dim, ForwardHopper{problem, q, k, v, out, lse, stream});
}

}  // namespace cohort::kernels::COHORT_DEVICE
