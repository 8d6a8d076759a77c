// SwiGLU, rotary embedding and AdamW: each element (or pair) by itself.
//
// SwiGLU: a thread a 16-byte piece of the output; forward moves 3 elements an output, backward 5.
// With s = 1 / (1 + e^-gate): d_gate = d_y up s (1 + gate (1 - s)), d_up = d_y gate s. RoPE: (a, b)
// becomes (a cos - b sin, b cos + a sin). A thread a pair; neighbouring threads have neighbouring
// pairs of one head, so a warp's accesses are contiguous; 2 elements read and written a pair, the
// tables of a position stay in the cache over its heads. AdamW: a thread four elements at a time,
// 28 bytes an element (fp32 gradients) and 2 for the bf16 copy; each operation rounds by itself
// (never fused), as the CPU twin's do. Launch: blocks of 256 threads. SwiGLU and RoPE have as many
// as there are pieces and pairs; AdamW has 1024 elements a block, the blocks of up to 24 tensors in
// one launch, whose list is an argument.
#include "kernels/cuda/elementwise.cuh"

#include "kernels/cuda/pieces.cuh"

namespace cohort::kernels::COHORT_DEVICE {
namespace {

constexpr int kThreads = 256;

__device__ inline int64_t thread_of_grid() {
  return static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
}
unsigned blocks_for(int64_t threads) {
  return static_cast<unsigned>((threads + kThreads - 1) / kThreads);
}
__device__ inline float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

template <class T, int N>
__global__ void swiglu_kernel(const T* gate_up, int64_t pieces, int64_t width, T* y) {
  const int64_t piece = thread_of_grid();
  if (piece >= (kPlanted<Fault::kTail> ? pieces - 1 : pieces)) return;
  const int64_t row = piece * N / width, i = piece * N % width;
  float g[N], u[N];
  load_piece(gate_up + row * 2 * width + i, g);
  load_piece(gate_up + row * 2 * width + width + i, u);
#pragma unroll
  for (int j = 0; j < N; ++j) g[j] = g[j] * sigmoid(g[j]) * u[j];
  store_piece(y + row * width + i, g);
}

template <class T, int N>
__global__ void swiglu_backward_kernel(
    const T* gate_up, const T* d_y, int64_t pieces, int64_t width, T* d_gate_up) {
  const int64_t piece = thread_of_grid();
  if (piece >= (kPlanted<Fault::kTail> ? pieces - 1 : pieces)) return;
  const int64_t row = piece * N / width, i = piece * N % width, at = row * 2 * width + i;
  float g[N], u[N], dy[N];
  load_piece(gate_up + at, g);
  load_piece(gate_up + at + width, u);
  load_piece(d_y + row * width + i, dy);
#pragma unroll
  for (int j = 0; j < N; ++j) {
    const float s = sigmoid(g[j]), d_up = dy[j] * (g[j] * s);
    g[j] = dy[j] * u[j] * (s * (1.0f + g[j] * (1.0f - s)));
    u[j] = d_up;
  }
  store_piece(d_gate_up + at, g);
  store_piece(d_gate_up + at + width, u);
}

template <class T>
__global__ void rope_kernel(
    RopeShape shape, const T* x, const float* cos, const float* sin, T* y, int64_t pairs) {
  const int64_t pair = thread_of_grid();
  if (pair >= (kPlanted<Fault::kTail> ? pairs - 1 : pairs)) return;
  const int64_t half = shape.dim / 2, i = pair % half, row = pair / half;  // row of y
  const int64_t head = row % shape.heads, token = row / shape.heads;
  const int64_t position = token % shape.length, batch = token / shape.length;
  const int64_t first = shape.interleave ? 2 * i : i, apart = shape.interleave ? 1 : half;
  const T* from =
      x + batch * shape.strides[0] + position * shape.strides[1] + head * shape.strides[2] + first;
  float a[1], b[1];
  load_piece(from, a);
  load_piece(from + apart, b);
  const float c = cos[position * half + i];
  const float s = sin[position * half + i] * static_cast<float>(shape.sign);
  const float low[1] = {a[0] * c - b[0] * s}, high[1] = {b[0] * c + a[0] * s};
  store_piece(y + row * shape.dim + first, low);
  store_piece(y + row * shape.dim + first + apart, high);
}

constexpr int kTensors = 24, kElementsOfBlock = kThreads * 4;

/// An argument of a launch: 1.3 KB of the 4 KB there are.
template <class Grad>
struct AdamWList {
  AdamWTensor<Grad> tensor[kTensors];
  int64_t first_block[kTensors + 1];
  int count;
};

/// Each operation rounded by itself.
__device__ inline void adamw_element(
    const AdamWStep& f, float gradient, float& weight, float& m, float& v) {
  const float g = __fmul_rn(gradient, f.grad_scale);
  const float difference = __fsub_rn(g, m);
  m = f.one_minus_beta1 < 0.5f ? __fadd_rn(m, __fmul_rn(f.one_minus_beta1, difference))
                               : __fsub_rn(g, __fmul_rn(difference, f.beta1));
  v = __fadd_rn(__fmul_rn(v, f.beta2), __fmul_rn(__fmul_rn(f.one_minus_beta2, g), g));
  const float denominator = __fadd_rn(__fdiv_rn(__fsqrt_rn(v), f.bias2_sqrt), f.eps);
  weight = __fadd_rn(__fmul_rn(weight, f.decay),
                     __fdiv_rn(__fmul_rn(f.minus_step_size, m), denominator));
}

template <class Grad>
__global__ void adamw_kernel(AdamWList<Grad> list, AdamWStep step) {
  int i = 0;
  while (i + 1 < list.count && static_cast<int64_t>(blockIdx.x) >= list.first_block[i + 1]) ++i;
  const AdamWTensor<Grad> t = list.tensor[i];
  const int64_t begin = (blockIdx.x - list.first_block[i]) * kElementsOfBlock;
  const int64_t n = kPlanted<Fault::kTail> ? t.n - 1 : t.n;
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const int64_t at = begin + j * kThreads + threadIdx.x;
    if (at >= n) return;
    float gradient[1], weight = t.weight[at], m = t.m[at], v = t.v[at];
    load_piece(t.grad + at, gradient);
    adamw_element(step, gradient[0], weight, m, v);
    t.weight[at] = weight;
    t.m[at] = m;
    t.v[at] = v;
    if (t.weight_bf16) t.weight_bf16[at] = __float2bfloat16_rn(weight);
  }
}

}  // namespace

template <class T>
void swiglu_forward(const T* gate_up, int64_t rows, int64_t width, T* y, Stream stream) {
  if (rows == 0 || width == 0) return;
  const bool wide = in_wide_pieces<T>(width, gate_up, y);
  const int64_t pieces = rows * width / (wide ? kWide<T> : 1);
  launch(wide ? swiglu_kernel<T, kWide<T>> : swiglu_kernel<T, 1>,
         Grid(blocks_for(pieces), kThreads, 0, stream),
         gate_up,
         pieces,
         width,
         y);
}

template <class T>
void swiglu_backward(
    const T* gate_up, const T* d_y, int64_t rows, int64_t width, T* d_gate_up, Stream stream) {
  if (rows == 0 || width == 0) return;
  const bool wide = in_wide_pieces<T>(width, gate_up, d_y, d_gate_up);
  const int64_t pieces = rows * width / (wide ? kWide<T> : 1);
  launch(wide ? swiglu_backward_kernel<T, kWide<T>> : swiglu_backward_kernel<T, 1>,
         Grid(blocks_for(pieces), kThreads, 0, stream),
         gate_up,
         d_y,
         pieces,
         width,
         d_gate_up);
}

template <class T>
void rope(
    const RopeShape& shape, const T* x, const float* cos, const float* sin, T* y, Stream stream) {
  const int64_t pairs = shape.batch * shape.length * shape.heads * (shape.dim / 2);
  if (pairs == 0) return;
  launch(
      rope_kernel<T>, Grid(blocks_for(pairs), kThreads, 0, stream), shape, x, cos, sin, y, pairs);
}

template <class Grad>
void adamw(const AdamWTensor<Grad>* tensors, int64_t count, const AdamWStep& step, Stream stream) {
  for (int64_t first = 0; first < count; first += kTensors) {
    AdamWList<Grad> list{};
    int64_t blocks = 0;
    for (int64_t i = first; i < count && i < first + kTensors; ++i) {
      if (tensors[i].n == 0) continue;
      list.tensor[list.count] = tensors[i];
      list.first_block[list.count++] = blocks;
      blocks += (tensors[i].n + kElementsOfBlock - 1) / kElementsOfBlock;
    }
    if (blocks == 0) continue;
    launch(
        adamw_kernel<Grad>, Grid(static_cast<unsigned>(blocks), kThreads, 0, stream), list, step);
  }
}

#define COHORT_INSTANTIATE(T)                                                             \
  template void swiglu_forward(const T*, int64_t, int64_t, T*, Stream);                   \
  template void swiglu_backward(const T*, const T*, int64_t, int64_t, T*, Stream);        \
  template void rope(const RopeShape&, const T*, const float*, const float*, T*, Stream); \
  template void adamw(const AdamWTensor<T>*, int64_t, const AdamWStep&, Stream);
COHORT_INSTANTIATE(float)
COHORT_INSTANTIATE(bf16)
#undef COHORT_INSTANTIATE

}  // namespace cohort::kernels::COHORT_DEVICE
