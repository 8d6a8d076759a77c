// Causal attention within documents, backward: FlashAttention-2 (Dao, arXiv:2307.08691, algorithm
// 2) on the tensor cores of sm_80 and up.
//
// With P = exp(scale q k^T - lse), recomputed, and delta = <out, d_out> of each query:
//   dV = P^T dO,  dS = P (dO v^T - delta),  dQ = scale dS k,  dK = scale dS^T q.
// Departure from the paper, whose blocks add into dQ with atomics: two kernels, one that owns keys
// and one that owns queries, so that every sum has one order and one owner. It costs the products q
// k^T and dO v^T a second time.
//
// key_kernel: a block of eight warps takes 64 keys of one key-value head and goes over the heads of
// its group and their queries, from the diagonal on, in tiles of 64. A warp computes P and dS of 16
// queries x 32 keys, which go to shared memory as bf16; then it has 16 keys and half of the
// channels, and adds P^T dO and dS^T q there. Tiles of q and dO come by cp.async into two stages.
// query_kernel: a block of four warps takes 64 queries of one head, 16 a warp, and goes over the
// keys, 32 at a time; dS stays in registers, where the sums of one mma are the left side of the
// next. delta_kernel: one pass over out and d_out.
//
// FLOPs: 4 (Dqk + Dv) and 4 Dqk + 2 Dv a query, head and visible key, 1.38 times the least at
// 192/128. Bytes, a head: k, v and their gradients once, q and dO of a run of n about n / 128
// times, and k and v again, from L2 but the first time. Launches: 256 threads, runs x ceil(longest
// / 64) x kv_heads blocks, the long ones (early keys) first, 136 KB of shared memory at 192/128;
// 128 threads, runs x ceil(longest / 64) x heads blocks, late queries first, 80 KB.
#include "kernels/cuda/attention_backward.cuh"

#include "kernels/cuda/attention_backward_pieces.cuh"

namespace cohort::kernels::COHORT_DEVICE {
namespace {

/// s [16, 8 kTiles] = rows [row, + 16) of `left` times rows [begin, + 8 kTiles) of `right`.
template <int D, int kTiles>
__device__ void multiply_rows(
    float (&s)[kTiles][4], const bf16* left, int row, const bf16* right, int begin) {
#pragma unroll
  for (int n = 0; n < kTiles; ++n)
#pragma unroll
    for (int r = 0; r < 4; ++r) s[n][r] = 0;
#pragma unroll 4
  for (int d = 0; d < D / 16; ++d) {
    uint32_t a[4];
    load_a<D>(a, left, row, d);
#pragma unroll
    for (int n = 0; n < kTiles / 2; ++n) {
      uint32_t b[2][2];
      load_b<D>(b[0], b[1], right, begin + n * 16, d);
      mma_m16n8k16(s[2 * n], a, b[0]);
      mma_m16n8k16(s[2 * n + 1], a, b[1]);
    }
  }
}

/// sum [16, 16 kGroups] += a times rows [row, + 16), columns [16 group, + 16 kGroups) of `right`.
template <int D, int kGroups>
__device__ void add_product(
    float (&sum)[2 * kGroups][4], const uint32_t (&a)[4], const bf16* right, int row, int group) {
#pragma unroll
  for (int n = 0; n < kGroups; ++n) {
    if (D / 16 % 2 != 0 && group + n >= D / 16) continue;
    uint32_t b[2][2];
    load_b_transposed<D>(b[0], b[1], right, row, group + n);
    mma_m16n8k16(sum[2 * n], a, b[0]);
    mma_m16n8k16(sum[2 * n + 1], a, b[1]);
  }
}

// ---- gradients of keys and values ----

constexpr int kKeyThreads = 256, kTileRows = 64;

/// Keys and values, two stages of queries and d_out, then P and dS.
template <int kQk, int kV>
struct KeyMemory {
  static constexpr int kQkTile = kTileRows * RowTile<kQk>::kStride;
  static constexpr int kVTile = kTileRows * RowTile<kV>::kStride;
  static constexpr int kWeights = kTileRows * RowTile<kTileRows>::kStride;
  static constexpr size_t kBytes = sizeof(bf16) * (3 * (kQkTile + kVTile) + 2 * kWeights);
  bf16* memory;
  __device__ bf16* k() const { return memory; }
  __device__ bf16* v() const { return memory + kQkTile; }
  __device__ bf16* q(int step) const {
    return memory + kQkTile + kVTile + step % 2 * (kQkTile + kVTile);
  }
  __device__ bf16* d_out(int step) const { return q(step) + kQkTile; }
  __device__ bf16* p() const { return memory + 3 * (kQkTile + kVTile); }
  __device__ bf16* d_s() const { return p() + kWeights; }
};

/// Half of the channels of D, in groups of 16: those of a warp.
template <int D>
constexpr int kHalfGroups = (D / 16 + 1) / 2;

/// The scores of a tile: a warp's P and dS go to shared memory.
template <int kQk, int kV>
__device__ void weigh_tile(const KeyMemory<kQk, kV>& memory,
                           int step,
                           bool diagonal,
                           const QueryScalars& scalars,
                           float scale_log2) {
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int query = warp % 4 * 16, key = warp / 4 * 32;
  float p[4][4] = {}, d_s[4][4] = {};
  if (!diagonal || key < query + 16) {
    multiply_rows<kQk, 4>(p, memory.q(step), query, memory.k(), key);
    multiply_rows<kV, 4>(d_s, memory.d_out(step), query, memory.v(), key);
    softmax_gradient<4>(p, d_s, scalars, diagonal ? query : kTileRows, key, scale_log2);
  }
  put_rows<kTileRows>(p, {1.0f, 1.0f}, memory.p(), query, key / 8);
  put_rows<kTileRows>(d_s, {1.0f, 1.0f}, memory.d_s(), query, key / 8);
}

template <int kQk, int kV>
__global__ void __launch_bounds__(kKeyThreads)
    key_kernel(const BackwardOperands of, bf16* d_k, bf16* d_v) {
  const int tile = static_cast<int>(blockIdx.x % of.tiles);
  const int64_t run = blockIdx.x / of.tiles, run_first = of.run_start[run];
  const int count = static_cast<int>(of.run_start[run + 1] - run_first);
  const int first = tile * kTileRows;
  if (first >= count) return;
  const int kv_head = static_cast<int>(blockIdx.y), group = of.heads / of.kv_heads;
  const int tiles_left = (count - first + kTileRows - 1) / kTileRows, steps = group * tiles_left;

  const KeyMemory<kQk, kV> memory{dynamic_shared<bf16>()};
  const int64_t q_stride = int64_t{kQk} * of.heads, o_stride = int64_t{kV} * of.heads;
  const int64_t k_stride = int64_t{kQk} * of.kv_heads, v_stride = int64_t{kV} * of.kv_heads;
  const int64_t k_first = (run_first + first) * k_stride + kv_head * kQk;
  const int64_t v_first = (run_first + first) * v_stride + kv_head * kV;
  load_tile<kQk, kTileRows, kKeyThreads>(of.k + k_first, k_stride, count - first, memory.k());
  load_tile<kV, kTileRows, kKeyThreads>(of.v + v_first, v_stride, count - first, memory.v());

  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  QueryScalars next;
  const auto load = [&](int step) {
    const int64_t head = kv_head * group + step / tiles_left;
    const int query = first + step % tiles_left * kTileRows;
    const int64_t row = run_first + query;
    const int valid = count - query - (kPlanted<Fault::kTail> ? 1 : 0);
    load_tile<kQk, kTileRows, kKeyThreads>(
        of.q + row * q_stride + head * kQk, q_stride, valid, memory.q(step));
    load_tile<kV, kTileRows, kKeyThreads>(
        of.d_out + row * o_stride + head * kV, o_stride, valid, memory.d_out(step));
    copy_async_commit();
    next.load(of, head, run_first, query + warp % 4 * 16 + lane / 4, count);
  };
  load(0);

  constexpr int kQkGroups = kHalfGroups<kQk>, kVGroups = kHalfGroups<kV>;
  const int half = warp / 4, own = warp % 4;
  float k_sum[2 * kQkGroups][4] = {}, v_sum[2 * kVGroups][4] = {};
  for (int step = 0; step < steps; ++step) {
    if (!kPlanted<Fault::kCopyWait>) copy_async_wait<0>();
    __syncthreads();
    const QueryScalars scalars = next;
    const bool diagonal = step % tiles_left == 0;
    if (step + 1 < steps) load(step + 1);
    weigh_tile<kQk, kV>(memory, step, diagonal, scalars, of.scale * kLog2E);
    __syncthreads();
    // On the diagonal, queries before the warp's keys see none of them.
    for (int query = diagonal ? own * 16 : 0; query < kTileRows; query += 16) {
      uint32_t a[4];
      load_a_transposed<kTileRows>(a, memory.p(), own, query);
      add_product<kV, kVGroups>(v_sum, a, memory.d_out(step), query, half * kVGroups);
      load_a_transposed<kTileRows>(a, memory.d_s(), own, query);
      add_product<kQk, kQkGroups>(k_sum, a, memory.q(step), query, half * kQkGroups);
    }
  }

  // k and v have been read by all: the last step's second barrier came after.
  put_rows<kQk>(k_sum, {of.scale, of.scale}, memory.k(), own * 16, half * 2 * kQkGroups);
  put_rows<kV>(v_sum, {1.0f, 1.0f}, memory.v(), own * 16, half * 2 * kVGroups);
  __syncthreads();
  store_tile<kQk, kTileRows, kKeyThreads>(memory.k(), d_k + k_first, k_stride, count - first);
  store_tile<kV, kTileRows, kKeyThreads>(memory.v(), d_v + v_first, v_stride, count - first);
}

// ---- gradients of queries ----

constexpr int kQueryThreads = 128, kKeyStep = 32;

/// Queries and d_out, then two stages of keys and values.
template <int kQk, int kV>
struct QueryMemory {
  static constexpr int kQkRows = RowTile<kQk>::kStride, kVRows = RowTile<kV>::kStride;
  static constexpr size_t kBytes = sizeof(bf16) * (kTileRows + 2 * kKeyStep) * (kQkRows + kVRows);
  bf16* memory;
  __device__ bf16* q() const { return memory; }
  __device__ bf16* d_out() const { return memory + kTileRows * kQkRows; }
  __device__ bf16* k(int step) const {
    return memory + (kTileRows + step % 2 * kKeyStep) * (kQkRows + kVRows);
  }
  __device__ bf16* v(int step) const { return k(step) + kKeyStep * kQkRows; }
};

template <int kQk, int kV>
__global__ void __launch_bounds__(kQueryThreads)
    query_kernel(const BackwardOperands of, bf16* d_q) {
  const int tile = static_cast<int>(of.tiles - 1 - blockIdx.x % of.tiles);
  const int64_t run = blockIdx.x / of.tiles, run_first = of.run_start[run];
  const int count = static_cast<int>(of.run_start[run + 1] - run_first);
  const int first = tile * kTileRows;
  if (first >= count) return;
  const int64_t head = blockIdx.y, kv_head = head * of.kv_heads / of.heads;
  const int left = count - first;  // queries from the tile's first one on
  const int steps = (min(count, first + kTileRows) + kKeyStep - 1) / kKeyStep;

  const QueryMemory<kQk, kV> memory{dynamic_shared<bf16>()};
  const int64_t q_stride = int64_t{kQk} * of.heads, o_stride = int64_t{kV} * of.heads;
  const int64_t k_stride = int64_t{kQk} * of.kv_heads, v_stride = int64_t{kV} * of.kv_heads;
  const int64_t q_first = (run_first + first) * q_stride + head * kQk;
  load_tile<kQk, kTileRows, kQueryThreads>(of.q + q_first, q_stride, left, memory.q());
  load_tile<kV, kTileRows, kQueryThreads>(
      of.d_out + (run_first + first) * o_stride + head * kV, o_stride, left, memory.d_out());
  const auto load = [&](int step) {
    const int key = step * kKeyStep;
    load_tile<kQk, kKeyStep, kQueryThreads>(
        of.k + (run_first + key) * k_stride + kv_head * kQk, k_stride, count - key, memory.k(step));
    load_tile<kV, kKeyStep, kQueryThreads>(
        of.v + (run_first + key) * v_stride + kv_head * kV, v_stride, count - key, memory.v(step));
    copy_async_commit();
  };
  load(0);

  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int query = first + warp * 16;
  QueryScalars scalars;
  scalars.load(of, head, run_first, query + lane / 4, count);
  float sum[kQk / 8][4] = {};
  for (int step = 0; step < steps; ++step) {
    if (!kPlanted<Fault::kCopyWait>) copy_async_wait<0>();
    __syncthreads();
    if (step + 1 < steps) load(step + 1);
    const int key = step * kKeyStep;
    if (key >= query + 16) continue;
    float p[4][4], d_s[4][4];
    multiply_rows<kQk, 4>(p, memory.q(), warp * 16, memory.k(step), 0);
    multiply_rows<kV, 4>(d_s, memory.d_out(), warp * 16, memory.v(step), 0);
    softmax_gradient<4>(p, d_s, scalars, query, key, of.scale * kLog2E);
#pragma unroll
    for (int n = 0; n < kKeyStep / 16; ++n) {
      uint32_t a[4];
      sums_as_a(a, d_s[2 * n], d_s[2 * n + 1]);
      add_product<kQk, kQk / 16>(sum, a, memory.k(step), n * 16, 0);
    }
  }
  const int valid = left - warp * 16 - (kPlanted<Fault::kTail> ? 1 : 0);
  store_rows<kQk>(sum,
                  {of.scale, of.scale},
                  memory.q(),
                  warp * 16,
                  d_q + q_first + warp * 16 * q_stride,
                  q_stride,
                  valid);
}

// ---- delta ----

/// kV / 8 lanes a token and head, 16 bytes each.
template <int kV>
__global__ void __launch_bounds__(256)
    delta_kernel(const bf16* out, const bf16* d_out, int64_t num_tokens, int heads, float* delta) {
  constexpr int kLanes = kV / 8;
  const int64_t rows = num_tokens * heads;
  const int64_t row = (static_cast<int64_t>(blockIdx.x) * 256 + threadIdx.x) / kLanes;
  const int64_t at = min(row, rows - 1) * kV + threadIdx.x % kLanes * 8;
  float x[8], y[8], sum = 0;
  load_piece(out + at, x);
  load_piece(d_out + at, y);
#pragma unroll
  for (int i = 0; i < 8; ++i) sum = fmaf(x[i], y[i], sum);
#pragma unroll
  for (int distance = kLanes / 2; distance > 0; distance /= 2)
    sum += __shfl_xor_sync(0xffffffffu, sum, distance);
  if (row < rows - (kPlanted<Fault::kTail> ? 1 : 0) && threadIdx.x % kLanes == 0)
    delta[row % heads * num_tokens + row / heads] = sum;
}

struct Delta {
  const AttentionProblem& p;
  const bf16 *out, *d_out;
  float* delta;
  Stream stream;
  template <int, int kV>
  void run() const {
    const int64_t lanes = p.num_tokens * p.heads * (kV / 8);
    launch(delta_kernel<kV>,
           Grid(static_cast<unsigned>((lanes + 255) / 256), 256, 0, stream),
           out,
           d_out,
           p.num_tokens,
           static_cast<int>(p.heads),
           delta);
  }
};

struct Backward {
  const AttentionProblem& p;
  BackwardOperands of;
  bf16 *d_q, *d_k, *d_v;
  Stream stream;
  template <int kQk, int kV>
  void run() const {
    const unsigned tiles = static_cast<unsigned>(p.num_runs) * of.tiles;
    launch(key_kernel<kQk, kV>,
           Grid(dim3(tiles, static_cast<unsigned>(p.kv_heads)),
                kKeyThreads,
                KeyMemory<kQk, kV>::kBytes,
                stream),
           of,
           d_k,
           d_v);
    launch(query_kernel<kQk, kV>,
           Grid(dim3(tiles, static_cast<unsigned>(p.heads)),
                kQueryThreads,
                QueryMemory<kQk, kV>::kBytes,
                stream),
           of,
           d_q);
  }
};

}  // namespace

size_t attention_backward_workspace(const AttentionProblem& problem) {
  return sizeof(float) * static_cast<size_t>(problem.num_tokens * problem.heads);
}

void attention_delta(const AttentionProblem& problem,
                     const bf16* out,
                     const bf16* d_out,
                     float* delta,
                     Stream stream) {
  with_head_sizes(problem, "attention_delta", Delta{problem, out, d_out, delta, stream});
}

void attention_backward(const AttentionProblem& problem,
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
  auto* delta = static_cast<float*>(workspace);
  const Backward work{problem,
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
                       static_cast<unsigned>((problem.longest_run + kTileRows - 1) / kTileRows),
                       problem.scale},
                      d_q,
                      d_k,
                      d_v,
                      stream};
  check_problem(problem, "attention_backward", has_attention_kernel(problem.qk_dim, problem.v_dim));
  attention_delta(problem, out, d_out, delta, stream);
  with_head_sizes(problem, "attention_backward", work);
}

}  // namespace cohort::kernels::COHORT_DEVICE
