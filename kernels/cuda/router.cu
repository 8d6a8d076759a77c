// Which experts a token takes and how it weighs them, from its logits to its gates in one pass.
//
// Algorithm: a warp takes a token. Lane l holds experts l, l + 32, ...: it scores them (sigmoid, or
// softmax over the warp) and adds the bias. The biased scores go to shared memory, where lane g
// finds the two largest of group g; a group's rank among the groups says whether it is kept. K
// rounds then each take the best expert left: the largest key over the warp, then the lowest index
// that has it, two reductions in hardware. Ballots put the chosen into ascending order, and the
// gates are scaled by a sum taken in that order: the bits of the CPU twin where its exponential has
// them. Backward is a warp a token too: the chosen experts' gradients are laid into a row of zeros
// in shared memory.
//
// Bytes a token: forward reads E logits and writes E fp32 scores (V3, bf16: 1.5 KB) and 12 K;
// backward reads E scores and writes E logits. At V3's shape that is a tenth of what one row of the
// token's dispatch moves. Launch: 4 warps a block, T / 4 blocks, 4 (E + 32) fp32 of shared memory.
#include "kernels/cuda/router.cuh"

#include "kernels/cuda/pieces.cuh"

namespace cohort::kernels::COHORT_DEVICE {
namespace {

constexpr int kWarps = 4, kThreads = 32 * kWarps;
constexpr unsigned kAll = 0xffffffffu, kNone = 0;

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(bf16 x) { return __bfloat162float(x); }
__device__ inline void store(float* p, float x) { *p = x; }
__device__ inline void store(bf16* p, float x) { *p = __float2bfloat16_rn(x); }

/// Larger for larger values, never kNone; NaN as minus infinity, -0 as 0.
__device__ inline unsigned key_of(float value) {
  const unsigned bits =
      value != value ? 0xff800000u : __float_as_uint(value == 0.0f ? 0.0f : value);
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}

/// score[i] of the experts lane + 32 i < E, from their logits.
template <int kPerLane>
__device__ inline void score_experts(Scoring scoring, int E, int lane, float (&score)[kPerLane]) {
  if (scoring == Scoring::kSigmoid) {
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) score[i] = 1.0f / (1.0f + expf(-score[i]));
    return;
  }
  float most = -INFINITY, sum = 0;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i)
    if (lane + 32 * i < E) most = fmaxf(most, score[i]);
  most = warp_max(most);
#pragma unroll
  for (int i = 0; i < kPerLane; ++i)
    if (lane + 32 * i < E) sum += score[i] = expf(score[i] - most);
  sum = warp_sum(sum);
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) score[i] /= sum;
}

/// Bit g: group g is among the groups_kept best. `choice` holds the row, one gap after each group
/// so that the lanes' groups lie in different banks.
__device__ inline unsigned keep_groups(
    const float* choice, int size, int num_groups, int groups_kept, int lane) {
  float best = -INFINITY, second = -INFINITY;
  if (lane < num_groups)
    for (int i = 0; i < size; ++i) {
      const float value = choice[lane * (size + 1) + i];
      if (value > best) {
        second = best;
        best = value;
      } else if (value > second) {
        second = value;
      }
    }
  const float worth = size > 1 ? best + second : best;
  const unsigned key = key_of(worth);
  int better = 0;
  for (int g = 0; g < num_groups; ++g) {
    const unsigned other = __shfl_sync(kAll, key, g);
    better += other > key || (other == key && g < lane);
  }
  return __ballot_sync(kAll, lane < num_groups && better < groups_kept);
}

/// Bit i: expert lane + 32 i is among the K best. key[i] is kNone for experts that may not be
/// chosen.
template <int kPerLane>
__device__ inline unsigned choose(int K, int lane, unsigned (&key)[kPerLane]) {
  unsigned chosen = 0;
  for (int k = 0; k < K; ++k) {
    unsigned best = kNone;
    int at = 0;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i)
      if (key[i] > best) {
        best = key[i];
        at = i;
      }
    const unsigned most = __reduce_max_sync(kAll, best);
    const auto index = static_cast<unsigned>(lane + 32 * at);
    const unsigned first = __reduce_min_sync(kAll, best == most ? index : ~0u);
    if (first == index) {
      chosen |= 1u << at;
#pragma unroll
      for (int i = 0; i < kPerLane; ++i)
        if (i == at) key[i] = kNone;
    }
  }
  return chosen;
}

template <class Logit, int kPerLane>
__global__ void route_kernel(RouterShape shape,
                             const Logit* logits,
                             const float* bias,
                             float* scores,
                             int64_t* expert,
                             float* gate) {
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int64_t t = static_cast<int64_t>(blockIdx.x) * kWarps + warp;
  if (t >= shape.T) return;  // whole warps
  const int E = static_cast<int>(shape.E), K = static_cast<int>(shape.K);
  const int num_groups = static_cast<int>(shape.num_groups), size = E / num_groups;
  const int groups_kept = static_cast<int>(shape.groups_kept);
  float* choice = dynamic_shared<float>() + warp * (E + 32);

  float score[kPerLane];
  unsigned key[kPerLane];
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    const int e = lane + 32 * i;
    score[i] = e < E ? to_float(logits[t * E + e]) : 0;
  }
  score_experts(shape.scoring, E, lane, score);
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    const int e = lane + 32 * i;
    key[i] = kNone;
    if (e >= (kPlanted<Fault::kTail> ? E - 1 : E)) continue;
    scores[t * E + e] = score[i];
    const float biased = score[i] + (bias ? bias[e] : 0.0f);
    key[i] = key_of(biased);
    if (groups_kept < num_groups) choice[e + e / size] = biased == biased ? biased : -INFINITY;
  }
  if (groups_kept < num_groups) {
    __syncwarp();
    const unsigned kept = keep_groups(choice, size, num_groups, groups_kept, lane);
#pragma unroll
    for (int i = 0; i < kPerLane; ++i)
      if (lane + 32 * i < E && !(kept >> (lane + 32 * i) / size & 1)) key[i] = kNone;
  }
  const unsigned chosen = choose(K, lane, key);

  // The chosen in ascending order; lane k holds the k-th score. `choice` has been read, for what
  // each lane read has gone through the reductions: its first K places are used again.
  int before = 0;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    const unsigned here = __ballot_sync(kAll, chosen >> i & 1);
    if (chosen >> i & 1) {
      const int k = before + __popc(here & ((1u << lane) - 1));
      expert[t * K + k] = lane + 32 * i;
      choice[k] = score[i];
    }
    before += __popc(here);
  }
  __syncwarp();
  const float mine = lane < K ? choice[lane] : 0;
  float sum = 0;
  for (int k = 0; k < K; ++k) sum += choice[k];
  const float factor = shape.normalise ? shape.scale / (sum + 1e-20f) : shape.scale;
  if (lane < K) gate[t * K + lane] = mine * factor;
}

template <class Logit>
__global__ void route_backward_kernel(RouterShape shape,
                                      const float* scores,
                                      const int64_t* expert,
                                      const float* d_gate,
                                      const float* d_scores,
                                      Logit* d_logits) {
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int64_t t = static_cast<int64_t>(blockIdx.x) * kWarps + warp;
  if (t >= shape.T) return;  // whole warps
  const int E = static_cast<int>(shape.E), K = static_cast<int>(shape.K);
  const float* s = scores + t * E;
  float* gradient = dynamic_shared<float>() + warp * E;  // of the scores
  const int64_t e = lane < K ? expert[t * K + lane] : 0;
  const float chosen = lane < K ? s[e] : 0, d = lane < K ? d_gate[t * K + lane] : 0;
  float sum = 1e-20f, weighted = 0;
  for (int k = 0; k < K; ++k) {
    const float score = __shfl_sync(kAll, chosen, k);
    sum += score;
    weighted = fmaf(__shfl_sync(kAll, d, k), score, weighted);
  }
  for (int i = lane; i < E; i += 32) gradient[i] = d_scores ? d_scores[t * E + i] : 0;
  __syncwarp();  // the row is laid out
  // gate_k = scale s_k / sum: d s_k = scale (d_gate_k - sum_j d_gate_j s_j / sum) / sum
  if (lane < K)
    gradient[e] += shape.normalise ? shape.scale * (d - weighted / sum) / sum : shape.scale * d;
  __syncwarp();

  float dot = 0;
  if (shape.scoring == Scoring::kSoftmax) {
    for (int i = lane; i < E; i += 32) dot = fmaf(gradient[i], s[i], dot);
    dot = warp_sum(dot);
  }
  for (int i = lane; i < (kPlanted<Fault::kTail> ? E - 1 : E); i += 32)
    store(d_logits + t * E + i,
          shape.scoring == Scoring::kSoftmax ? s[i] * (gradient[i] - dot)
                                             : gradient[i] * s[i] * (1 - s[i]));
}

}  // namespace

template <class Logit>
void route(const RouterShape& shape,
           const Logit* logits,
           const float* bias,
           float* scores,
           int64_t* expert,
           float* gate,
           Stream stream) {
  if (shape.T == 0) return;
  const auto kernel = shape.E <= 32    ? route_kernel<Logit, 1>
                      : shape.E <= 64  ? route_kernel<Logit, 2>
                      : shape.E <= 128 ? route_kernel<Logit, 4>
                      : shape.E <= 256 ? route_kernel<Logit, 8>
                      : shape.E <= 512 ? route_kernel<Logit, 16>
                                       : route_kernel<Logit, 32>;
  const auto row = static_cast<size_t>(shape.E + 32) * sizeof(float);
  launch(
      kernel,
      Grid(static_cast<unsigned>((shape.T + kWarps - 1) / kWarps), kThreads, kWarps * row, stream),
      shape,
      logits,
      bias,
      scores,
      expert,
      gate);
}

template <class Logit>
void route_backward(const RouterShape& shape,
                    const float* scores,
                    const int64_t* expert,
                    const float* d_gate,
                    const float* d_scores,
                    Logit* d_logits,
                    Stream stream) {
  if (shape.T == 0) return;
  const auto row = static_cast<size_t>(shape.E) * sizeof(float);
  launch(
      route_backward_kernel<Logit>,
      Grid(static_cast<unsigned>((shape.T + kWarps - 1) / kWarps), kThreads, kWarps * row, stream),
      shape,
      scores,
      expert,
      d_gate,
      d_scores,
      d_logits);
}

#define COHORT_INSTANTIATE(Logit)                                                        \
  template void route(                                                                   \
      const RouterShape&, const Logit*, const float*, float*, int64_t*, float*, Stream); \
  template void route_backward(const RouterShape&,                                       \
                               const float*,                                             \
                               const int64_t*,                                           \
                               const float*,                                             \
                               const float*,                                             \
                               Logit*,                                                   \
                               Stream);
COHORT_INSTANTIATE(float)
COHORT_INSTANTIATE(bf16)
#undef COHORT_INSTANTIATE

}  // namespace cohort::kernels::COHORT_DEVICE
