// Causal attention within documents, backward, for compute capability 9.0: the sums of
// FlashAttention-2 (Dao, arXiv:2307.08691, algorithm 2) by wgmma and TMA.
//
// As in attention_backward.cu, two kernels own every sum, so there are no atomics: one has keys and
// their dK and dV, one has queries and their dQ; it costs q k^T and dO v^T a second time. Both are
// built alike: one block a multiprocessor holds tiles of 128 rows, 64 a group of four warps, one
// tile after another, while tiles of 64 rows of the other side pass by, which a producer copies by
// TMA into a ring of three stages.
//
// keys_kernel: S^T = k q^T and dP^T = v dO^T have keys as rows, so P^T and dS^T, rounded to bf16,
// are left sides in registers of dV += P^T dO and dK += dS^T q: nothing but operands passes through
// shared memory. P is taken up rounded for dS too, and dP^T is computed in the registers of S^T:
// beside dK and dV, 160 of the 240 registers at 192/128, there is no room for both. dP^T and the
// sum of dV are under way together. The producer's warp also brings lse and delta of the queries,
// which the columns want. queries_kernel: S = q k^T, dP = dO v^T, and dS is the left side of dQ +=
// dS k, which is under way with the next tile's S and dP. Tiles of queries before a group's keys,
// and keys after its queries, are passed over.
//
// FLOPs: 4 (Dqk + Dv) and 4 Dqk + 2 Dv a query, head and visible key, 1.38 times the least at
// 192/128. Bytes, a head: the passing side n / 256 times on average, from L2 but the first time
// (TileCursor); at 192/128 a passing tile is 40 KB for 10.5 and 8.4 MFLOP. Launch: 384 threads, a
// block a multiprocessor; 5 x 64 (Dqk + Dv) bf16 of shared memory, 200 KB at 192/128.
#include "kernels/cuda/attention_backward.cuh"

#include "kernels/cuda/attention_backward_pieces.cuh"
#include "kernels/cuda/attention_hopper.cuh"

namespace cohort::kernels::COHORT_DEVICE {
namespace {

constexpr int kHeld = kHopperTile, kPassing = 64, kStages = 3;
constexpr int kGroups = 2, kThreads = 128 * (kGroups + 1);

struct Barriers {
  Mbarrier held_empty, full[kStages], empty[kStages];
};

/// lse in units of log2, and delta, of passing queries.
struct Scalars {
  float lse[kStages][kPassing], delta[kStages][kPassing];
};

template <int kQk, int kV>
struct Tiles {
  static constexpr int kStage = kPassing * (kQk + kV);
  static constexpr size_t kBytes = sizeof(bf16) * (kHeld * (kQk + kV) + kStages * kStage);
  bf16* held_qk;
  __device__ bf16* held_v() const { return held_qk + kHeld * kQk; }
  __device__ bf16* passing_qk(int stage) const {
    return held_qk + kHeld * (kQk + kV) + kStage * stage;
  }
  __device__ bf16* passing_v(int stage) const { return passing_qk(stage) + kPassing * kQk; }
};

struct Maps {
  TensorMap held_qk, held_v, passing_qk, passing_v;
};

#if COHORT_HAS_HOPPER

__device__ void make_barriers(Barriers& barriers, unsigned producers) {
  if (threadIdx.x == 0) {
    mbarrier_init(barriers.held_empty, 4 * kGroups);
    for (int stage = 0; stage < kStages; ++stage) {
      mbarrier_init(barriers.full[stage], producers);
      mbarrier_init(barriers.empty[stage], 4 * kGroups);
    }
    mbarrier_init_fence();
  }
  __syncthreads();
}

/// The thread that copies.
template <int kQk, int kV>
struct Producer {
  const Maps& maps;
  const Tiles<kQk, kV>& tiles;
  Barriers& barriers;
  Ring<1> held;
  Ring<kStages> passing;

  /// Begins the copies of a passing tile; the first of a held tile brings that along.
  __device__ void copy(
      bool first, int held_head, int64_t held_token, int passing_head, int64_t passing_token) {
    const int stage = passing.stage();
    Mbarrier& full = barriers.full[stage];
    if (first) mbarrier_wait(barriers.held_empty, held.parity_before());
    mbarrier_wait(barriers.empty[stage], passing.parity_before());
    mbarrier_arrive_expect(full,
                           (kPassing + (first ? kHeld : 0)) * (kQk + kV) * unsigned{sizeof(bf16)});
    if (first) {
      copy_panels<kQk>(tiles.held_qk, maps.held_qk, kHeld, held_head, held_token, full);
      copy_panels<kV>(tiles.held_v(), maps.held_v, kHeld, held_head, held_token, full);
      ++held.n;
    }
    copy_panels<kQk>(
        tiles.passing_qk(stage), maps.passing_qk, kPassing, passing_head, passing_token, full);
    copy_panels<kV>(
        tiles.passing_v(stage), maps.passing_v, kPassing, passing_head, passing_token, full);
  }
};

/// What the groups of both kernels do.
template <int kQk, int kV>
struct Group {
  const BackwardOperands& of;
  const Tiles<kQk, kV>& tiles;
  Barriers& barriers;
  int warp;  ///< 0 to 7, of those that compute.
  Ring<kStages> passing;

  __device__ int number() const { return warp / 4; }
  /// First row of this warp in the held tile.
  __device__ int first_row() const { return warp * 16; }

  __device__ void arrive(Mbarrier& barrier) const {
    if (threadIdx.x % 32 == 0) mbarrier_arrive(barrier);
  }
  __device__ void wait_full() const {
    mbarrier_wait(barriers.full[passing.stage()], passing.parity());
  }
  __device__ void pass() {
    arrive(barriers.empty[passing.stage()]);
    ++passing.n;
  }

  /// s [64, 64] = this group's held rows times the passing rows: begun, not committed.
  __device__ void begin_qk(float (&s)[kPassing / 8][4]) const {
    begin_product<kQk>(s, tiles.held_qk, tiles.passing_qk(passing.stage()));
  }
  __device__ void begin_v(float (&s)[kPassing / 8][4]) const {
    begin_product<kV>(s, tiles.held_v(), tiles.passing_v(passing.stage()));
  }
  template <int D>
  __device__ void begin_product(float (&s)[kPassing / 8][4],
                                const bf16* held,
                                const bf16* passing) const {
#pragma unroll
    for (int d = 0; d < D / 16; ++d)
      wgmma(s,
            panel_descriptor(held, kHeld, number() * 64, d),
            panel_descriptor(passing, kPassing, 0, d),
            d > 0);
  }
  /// sum [64, D] += a [64, 64] times the passing rows.
  template <int kTiles>
  __device__ static void begin_sum(float (&sum)[kTiles][4],
                                   const uint32_t (&a)[kPassing / 16][4],
                                   const bf16* passing) {
#pragma unroll
    for (int row = 0; row < kPassing / 16; ++row)
      wgmma_across(sum, a[row], panel_descriptor(passing, kPassing, row * 16, 0));
  }
};

template <int kTiles>
__device__ void clear(float (&d)[kTiles][4]) {
#pragma unroll
  for (int n = 0; n < kTiles; ++n) d[n][0] = d[n][1] = d[n][2] = d[n][3] = 0;
}

// ---- gradients of keys and values

template <int kQk, int kV>
struct KeyGroup : Group<kQk, kV> {
  const Scalars& scalars;
  float k_sum[kQk / 8][4], v_sum[kV / 8][4];
  float s[kPassing / 8][4];
  uint32_t p[kPassing / 16][4], d_s[kPassing / 16][4];

  /// One passing tile; `diagonal`: its queries are the group's keys.
  __device__ void step(bool diagonal) {
    const int stage = this->passing.stage(), lane = static_cast<int>(threadIdx.x) % 32;
    const float scale_log2 = this->of.scale * kLog2E;
    keep_in_place(s);
    wgmma_fence();
    this->begin_qk(s);
    wgmma_commit();
    if (!kPlanted<Fault::kCopyWait>) wgmma_wait<0>();
    keep_in_place(s);
    const int key = this->warp % 4 * 16 + lane / 4;
#pragma unroll
    for (int n = 0; n < kPassing / 8; ++n)
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        const int query = n * 8 + lane % 4 * 2 + r % 2;
        const float w = exp2_approx(fmaf(s[n][r], scale_log2, -scalars.lse[stage][query]));
        const bool hidden = diagonal && key + r / 2 * 8 > query + (kPlanted<Fault::kMask> ? 1 : 0);
        s[n][r] = hidden ? 0.0f : w;
      }
#pragma unroll
    for (int i = 0; i < kPassing / 16; ++i) sums_as_a(p[i], s[2 * i], s[2 * i + 1]);

    keep_in_place(s);
    keep_in_place(p);
    keep_in_place(v_sum);
    wgmma_fence();
    this->begin_v(s);
    wgmma_commit();
    this->begin_sum(v_sum, p, this->tiles.passing_v(stage));
    wgmma_commit();
    wgmma_wait<1>();
    keep_in_place(s);
#pragma unroll
    for (int n = 0; n < kPassing / 8; ++n)
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        const uint32_t pair = p[n / 2][n % 2 * 2 + r / 2];
        const float w = __uint_as_float(r % 2 ? pair & 0xffff0000u : pair << 16);
        s[n][r] = w * (s[n][r] - scalars.delta[stage][n * 8 + lane % 4 * 2 + r % 2]);
      }
#pragma unroll
    for (int i = 0; i < kPassing / 16; ++i) sums_as_a(d_s[i], s[2 * i], s[2 * i + 1]);

    keep_in_place(d_s);
    keep_in_place(k_sum);
    wgmma_fence();
    this->begin_sum(k_sum, d_s, this->tiles.passing_qk(stage));
    wgmma_commit();
    wgmma_wait<0>();
    keep_in_place(v_sum);
    keep_in_place(k_sum);
    this->pass();
  }

  /// The keys of a tile, past which `steps` tiles of queries go, `tiles_left` a head.
  __device__ void own(const TileOfRun& at, int steps, int tiles_left, bf16* d_k, bf16* d_v) {
    const int first = at.tile * kHeld;
    const bool works = first + this->number() * 64 < at.count;
    clear(k_sum);
    clear(v_sum);
    for (int i = 0; i < steps; ++i) {
      this->wait_full();
      const int ahead = i % tiles_left - this->number();
      if (works && ahead >= 0)
        step(ahead == 0);
      else
        this->pass();
    }
    this->arrive(this->barriers.held_empty);

    const int row = first + this->first_row();
    const int valid = at.count - row - (kPlanted<Fault::kTail> ? 1 : 0);
    const int64_t heads = this->of.kv_heads, to = (at.run_first + row) * heads + at.head;
    const float scale[2] = {this->of.scale, this->of.scale}, one[2] = {1, 1};
    write_rows(k_sum, scale, d_k + to * kQk, heads * kQk, valid);
    write_rows(v_sum, one, d_v + to * kV, heads * kV, valid);
  }
};

/// The warp that copies queries and d_out, and brings the scalars of the queries.
template <int kQk, int kV>
__device__ void produce_queries(const BackwardOperands& of,
                                const TileOfRun& at,
                                int steps,
                                int tiles_left,
                                Scalars& scalars,
                                Producer<kQk, kV>& producer) {
  const int lane = static_cast<int>(threadIdx.x), group = of.heads / of.kv_heads;
  const int first = at.tile * kHeld;
  for (int i = 0; i < steps; ++i, ++producer.passing.n) {
    const int head = at.head * group + i / tiles_left;
    const int query = first + i % tiles_left * kPassing, stage = producer.passing.stage();
    if (lane == 0) producer.copy(i == 0, at.head, at.run_first + first, head, at.run_first + query);
    __syncwarp();  // The stage is free.
    for (int row = lane; row < kPassing; row += 32) {
      const bool there = query + row < at.count - (kPlanted<Fault::kTail> ? 1 : 0);
      const int64_t from = head * of.num_tokens + at.run_first + query + row;
      scalars.lse[stage][row] = there ? of.lse[from] * kLog2E : INFINITY;
      scalars.delta[stage][row] = there ? of.delta[from] : 0.0f;
    }
    __syncwarp();
    if (lane == 0) mbarrier_arrive(producer.barriers.full[stage]);
  }
}
#endif

template <int kQk, int kV>
__global__ void __launch_bounds__(kThreads, 1) keys_kernel(const __grid_constant__ Maps maps,
                                                           const BackwardOperands of,
                                                           int num_runs,
                                                           bf16* d_k,
                                                           bf16* d_v) {
#if COHORT_HAS_HOPPER
  COHORT_SHARED(Barriers, barriers);
  COHORT_SHARED(Scalars, scalars);
  const Tiles<kQk, kV> tiles{dynamic_shared<bf16>()};
  make_barriers(barriers, 2);
  TileCursor cursor{of.run_start,
                    num_runs,
                    of.kv_heads,
                    1,
                    of.heads / of.kv_heads * (kQk + kV) * int{sizeof(bf16)},
                    false};
  TileOfRun at{};
  const auto tiles_left = [&] { return (at.count - at.tile * kHeld + kPassing - 1) / kPassing; };
  const int group = of.heads / of.kv_heads;
  if (threadIdx.x < 128) {
    give_registers<24>();
    if (threadIdx.x >= 32) return;
    Producer<kQk, kV> producer{maps, tiles, barriers, {}, {}};
    while (cursor.take(at))
      produce_queries(of, at, group * tiles_left(), tiles_left(), scalars, producer);
  } else {
    take_registers<240>();
    KeyGroup<kQk, kV> keys{
        {of, tiles, barriers, warp_of_block() - 4, {}}, scalars, {}, {}, {}, {}, {}};
    while (cursor.take(at)) keys.own(at, group * tiles_left(), tiles_left(), d_k, d_v);
  }
#elif defined(__CUDA_ARCH__)
  __trap();
#endif
}

// ---- gradients of queries

#if COHORT_HAS_HOPPER
template <int kQk, int kV>
struct QueryGroup : Group<kQk, kV> {
  float sum[kQk / 8][4];
  float p[kPassing / 8][4], d_s[kPassing / 8][4];
  uint32_t a[kPassing / 16][4];

  /// The queries of a tile, past which `steps` tiles of keys go.
  __device__ void own(const TileOfRun& at, int steps, bf16* d_q) {
    const int first = at.tile * kHeld, row = first + this->first_row();
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const float scale_log2 = this->of.scale * kLog2E;
    // Tiles that the group's queries see.
    const int seen = first + this->number() * 64 < at.count ? 2 * at.tile + this->number() + 1 : 0;
    QueryScalars scalars;
    scalars.load(this->of, at.head, at.run_first, row + lane / 4, at.count);
    clear(sum);
    int under_way = -1;  // the stage whose keys are being added
    for (int j = 0; j < steps; ++j) {
      this->wait_full();
      if (j >= seen) {
        this->pass();
        continue;
      }
      keep_in_place(p);
      keep_in_place(d_s);
      wgmma_fence();
      this->begin_qk(p);
      this->begin_v(d_s);
      wgmma_commit();
      wgmma_wait<0>();
      keep_in_place(p);
      keep_in_place(d_s);
      keep_in_place(sum);
      keep_in_place(a);
      if (under_way >= 0) this->arrive(this->barriers.empty[under_way]);
      softmax_gradient(p, d_s, scalars, row, j * kPassing, scale_log2);
#pragma unroll
      for (int i = 0; i < kPassing / 16; ++i) sums_as_a(a[i], d_s[2 * i], d_s[2 * i + 1]);
      keep_in_place(a);
      keep_in_place(sum);
      wgmma_fence();
      this->begin_sum(sum, a, this->tiles.passing_qk(this->passing.stage()));
      wgmma_commit();
      under_way = this->passing.stage();
      ++this->passing.n;
    }
    if (!kPlanted<Fault::kCopyWait>) wgmma_wait<0>();
    keep_in_place(sum);
    keep_in_place(a);
    if (under_way >= 0) this->arrive(this->barriers.empty[under_way]);
    this->arrive(this->barriers.held_empty);

    const int64_t to = (at.run_first + row) * this->of.heads + at.head;
    const float scale[2] = {this->of.scale, this->of.scale};
    write_rows(sum,
               scale,
               d_q + to * kQk,
               int64_t{this->of.heads} * kQk,
               at.count - row - (kPlanted<Fault::kTail> ? 1 : 0));
  }
};
#endif

template <int kQk, int kV>
__global__ void __launch_bounds__(kThreads, 1) queries_kernel(const __grid_constant__ Maps maps,
                                                              const BackwardOperands of,
                                                              int num_runs,
                                                              bf16* d_q) {
#if COHORT_HAS_HOPPER
  COHORT_SHARED(Barriers, barriers);
  const Tiles<kQk, kV> tiles{dynamic_shared<bf16>()};
  make_barriers(barriers, 1);
  TileCursor cursor{of.run_start,
                    num_runs,
                    of.heads,
                    of.heads / of.kv_heads,
                    (kQk + kV) * int{sizeof(bf16)},
                    true};
  TileOfRun at{};
  const auto steps = [&] {
    return (min(at.count, (at.tile + 1) * kHeld) + kPassing - 1) / kPassing;
  };
  if (threadIdx.x < 128) {
    give_registers<40>();
    if (threadIdx.x > 0) return;
    Producer<kQk, kV> producer{maps, tiles, barriers, {}, {}};
    while (cursor.take(at)) {
      const int64_t first = at.run_first + at.tile * kHeld;
      for (int j = 0; j < steps(); ++j, ++producer.passing.n)
        producer.copy(
            j == 0, at.head, first, at.head * of.kv_heads / of.heads, at.run_first + j * kPassing);
    }
  } else {
    take_registers<232>();
    QueryGroup<kQk, kV> queries{{of, tiles, barriers, warp_of_block() - 4, {}}, {}, {}, {}, {}};
    while (cursor.take(at)) queries.own(at, steps(), d_q);
  }
#elif defined(__CUDA_ARCH__)
  __trap();
#endif
}

struct BackwardHopper {
  const AttentionProblem& p;
  BackwardOperands of;
  bf16 *d_q, *d_k, *d_v;
  Stream stream;
  template <int kQk, int kV>
  void run() const {
    const int64_t T = p.num_tokens;
    const auto of_keys = [&](int rows) {
      return std::pair(tensor_map(of.k, T, p.kv_heads, kQk, rows),
                       tensor_map(of.v, T, p.kv_heads, kV, rows));
    };
    const auto of_queries = [&](int rows) {
      return std::pair(tensor_map(of.q, T, p.heads, kQk, rows),
                       tensor_map(of.d_out, T, p.heads, kV, rows));
    };
    const auto [held_k, held_v] = of_keys(kHeld);
    const auto [passing_q, passing_d_out] = of_queries(kPassing);
    launch(keys_kernel<kQk, kV>,
           Grid(hopper_blocks(p, p.kv_heads), kThreads, Tiles<kQk, kV>::kBytes, stream),
           Maps{held_k, held_v, passing_q, passing_d_out},
           of,
           static_cast<int>(p.num_runs),
           d_k,
           d_v);
    const auto [held_q, held_d_out] = of_queries(kHeld);
    const auto [passing_k, passing_v] = of_keys(kPassing);
    launch(queries_kernel<kQk, kV>,
           Grid(hopper_blocks(p, p.heads), kThreads, Tiles<kQk, kV>::kBytes, stream),
           Maps{held_q, held_d_out, passing_k, passing_v},
           of,
           static_cast<int>(p.num_runs),
           d_q);
  }
};

}  // namespace

void attention_backward_hopper(const AttentionProblem& problem,
                               const bf16* q,
                               const bf16* k,
                               const bf16* v,
                               const bf16* out,
                               const float* lse,
                               const bf16* d_out,
                               bf16* d_q,
                               bf16* d_k,
                               bf16* d_v,
                               void* workspace,
                               Stream stream) {
  if (problem.num_runs == 0 || problem.longest_run == 0) return;
  check_problem(
      problem, "attention_backward_hopper", has_hopper_attention(problem.qk_dim, problem.v_dim));
  auto* delta = static_cast<float*>(workspace);
  attention_delta(problem, out, d_out, delta, stream);
  const BackwardHopper work{problem,
                            {q,
                             k,
                             v,
                             d_out,
                             lse,
                             delta,
                             problem.run_start,
                             problem.num_tokens,
                             static_cast<int>(problem.heads),
                             static_cast<int>(problem.kv_heads),
                             0,
                             problem.scale},
                            d_q,
                            d_k,
                            d_v,
                            stream};
  at_hopper_head_sizes(problem.qk_dim, problem.v_dim, work);
}

}  // namespace cohort::kernels::COHORT_DEVICE
