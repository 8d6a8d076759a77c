// Log-softmax and gather in one pass over the logits, tile by tile.
//
// Algorithm: a block takes a row of the tile. Each thread keeps the largest logit it has met and
// the sums of e^d and e^d d below it, d = (logit - largest) / temperature, and rescales them when a
// larger one comes; threads, warps and then the state of the earlier tiles are merged by the same
// rule, in a fixed order. The entropy is log S - U / S: two terms that are not negative, so nothing
// cancels. The gradient is a second pass over a tile, in place.
//
// Bytes: the logits once forward, twice for the gradient; 16 a row for the state. FLOPs: an
// exponential a logit and pass. Launch: a block of 256 threads a row; 128 bytes of shared memory.
#include "kernels/cuda/token_log_probs.cuh"

#include "kernels/cuda/pieces.cuh"

namespace cohort::kernels::COHORT_DEVICE {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;

struct Sums {
  float top = -INFINITY, sum = 0, weighted = 0;
};

/// Both, as seen from the larger top. A side without terms stays out: its top may be minus
/// infinity.
__device__ inline Sums merged(const Sums& a, const Sums& b, float inverse_temperature) {
  Sums out;
  out.top = fmaxf(a.top, b.top);
  const Sums sides[2] = {a, b};
#pragma unroll
  for (const Sums& side : sides) {
    if (side.sum == 0.0f) continue;
    const float shift = (side.top - out.top) * inverse_temperature;
    const float scale = expf(shift);
    out.sum = fmaf(side.sum, scale, out.sum);
    out.weighted = fmaf(scale, fmaf(side.sum, fmaxf(shift, -1e4f), side.weighted), out.weighted);
  }
  return out;
}

template <int N>
__device__ inline void add(const float (&logit)[N], float inverse_temperature, Sums& sums) {
  Sums here;
#pragma unroll
  for (int i = 0; i < N; ++i) here.top = fmaxf(here.top, logit[i]);
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const float d = (logit[i] - here.top) * inverse_temperature;
    // A logit of minus infinity has probability 0 and adds 0, not 0 times infinity; NaN stays.
    const float e = logit[i] == -INFINITY ? 0.0f : expf(d);
    here.sum += e;
    here.weighted = fmaf(e, d < -1e4f || d != d ? -1e4f : d, here.weighted);
  }
  sums = merged(sums, here, inverse_temperature);
}

template <class Logit, int N>
__global__ void add_tile_kernel(LogitTile<Logit> tile, SoftmaxState* state) {
  const int64_t row = blockIdx.x;
  const Logit* logits = tile.logits + row * tile.classes;
  const float inverse = tile.inverse_temperature;
  Sums sums;
  const int64_t end = kPlanted<Fault::kTail> ? tile.classes - N : tile.classes;
  for (int64_t i = threadIdx.x * N; i < end; i += kThreads * N) {
    float logit[N];
    load_piece(logits + i, logit);
    add(logit, inverse, sums);
  }
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) {
    Sums other;
    other.top = __shfl_xor_sync(0xffffffffu, sums.top, distance);
    other.sum = __shfl_xor_sync(0xffffffffu, sums.sum, distance);
    other.weighted = __shfl_xor_sync(0xffffffffu, sums.weighted, distance);
    sums = merged(sums, other, inverse);
  }
  COHORT_SHARED(float[kWarps][3], of_warp);
  if (threadIdx.x % 32 == 0) {
    of_warp[threadIdx.x / 32][0] = sums.top;
    of_warp[threadIdx.x / 32][1] = sums.sum;
    of_warp[threadIdx.x / 32][2] = sums.weighted;
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  SoftmaxState before{-INFINITY, 0, 0, 0};
  if (tile.first_class > 0) before = state[row];
  Sums total;
  total.top = before.top, total.sum = before.sum, total.weighted = before.weighted;
  for (int w = 0; w < kWarps; ++w) {
    Sums other;
    other.top = of_warp[w][0], other.sum = of_warp[w][1], other.weighted = of_warp[w][2];
    total = merged(total, other, inverse);
  }
  const int64_t at = tile.target[row] - tile.first_class;
  float target_logit[1] = {before.at_target};
  if (at >= 0 && at < tile.classes) load_piece(logits + at, target_logit);
  state[row] = {total.top, total.sum, total.weighted, target_logit[0]};
}

__global__ void finish_kernel(const SoftmaxState* state,
                              const int64_t* target,
                              int64_t rows,
                              float inverse_temperature,
                              float* log_prob,
                              float* entropy) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (row >= rows) return;
  const SoftmaxState s = state[row];
  const float log_sum = logf(s.sum);
  log_prob[row] = target[row] < 0 ? 0 : (s.at_target - s.top) * inverse_temperature - log_sum;
  if (entropy) entropy[row] = log_sum - s.weighted / s.sum;
}

template <class Logit, int N>
__global__ void tile_gradient_kernel(LogitTile<Logit> tile,
                                     const SoftmaxState* state,
                                     const float* coefficient) {
  const int64_t row = blockIdx.x;
  Logit* logits = tile.logits + row * tile.classes;
  const float inverse = tile.inverse_temperature;
  const SoftmaxState s = state[row];
  const bool counts = tile.target[row] >= 0;
  const float own = counts ? coefficient[row] * inverse : 0;
  const float scale = -own / s.sum;
  const int64_t at = tile.target[row] - tile.first_class;
  const int64_t end = kPlanted<Fault::kTail> ? tile.classes - N : tile.classes;
  for (int64_t i = threadIdx.x * N; i < end; i += kThreads * N) {
    float v[N];
    load_piece(logits + i, v);
#pragma unroll
    for (int j = 0; j < N; ++j) {
      // One minus a share near one would lose its digits: the share of the rest is not at hand, so
      // the difference is taken of the sums, as the CPU twin does.
      const float e = expf((v[j] - s.top) * inverse);
      v[j] = counts ? (i + j == at ? e - s.sum : e) * scale : 0;
    }
    store_piece(logits + i, v);
  }
}

}  // namespace

template <class Logit>
void add_logit_tile(const LogitTile<Logit>& tile, SoftmaxState* state, Stream stream) {
  if (tile.rows == 0) return;
  const bool wide = in_wide_pieces<Logit>(tile.classes, tile.logits);
  launch(wide ? add_tile_kernel<Logit, kWide<Logit>> : add_tile_kernel<Logit, 1>,
         Grid(static_cast<unsigned>(tile.rows), kThreads, 0, stream),
         tile,
         state);
}

void finish_log_probs(const SoftmaxState* state,
                      const int64_t* target,
                      int64_t rows,
                      float inverse_temperature,
                      float* log_prob,
                      float* entropy,
                      Stream stream) {
  if (rows == 0) return;
  launch(finish_kernel,
         Grid(static_cast<unsigned>((rows + kThreads - 1) / kThreads), kThreads, 0, stream),
         state,
         target,
         rows,
         inverse_temperature,
         log_prob,
         entropy);
}

template <class Logit>
void logit_tile_gradient(const LogitTile<Logit>& tile,
                         const SoftmaxState* state,
                         const float* coefficient,
                         Stream stream) {
  if (tile.rows == 0) return;
  const bool wide = in_wide_pieces<Logit>(tile.classes, tile.logits);
  launch(wide ? tile_gradient_kernel<Logit, kWide<Logit>> : tile_gradient_kernel<Logit, 1>,
         Grid(static_cast<unsigned>(tile.rows), kThreads, 0, stream),
         tile,
         state,
         coefficient);
}

#define COHORT_INSTANTIATE(Logit)                                               \
  template void add_logit_tile(const LogitTile<Logit>&, SoftmaxState*, Stream); \
  template void logit_tile_gradient(                                            \
      const LogitTile<Logit>&, const SoftmaxState*, const float*, Stream);
COHORT_INSTANTIATE(float)
COHORT_INSTANTIATE(bf16)
#undef COHORT_INSTANTIATE

}  // namespace cohort::kernels::COHORT_DEVICE
