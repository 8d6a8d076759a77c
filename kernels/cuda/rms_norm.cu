// RMSNorm on rows.
//
// Algorithm: forward, a block a row: squares are summed over the block, then the row, still in the
// first-level cache, is scaled. Backward, a block for 32 rows: with g = weight d_y,
//   d_x = r (g - x r^2 mean(g x)),
// and d_weight's part of these rows is summed in shared memory, where a thread meets its own
// columns alone; a second kernel adds the parts, column by column in the order of rows. No atomics:
// the result is the same each time.
//
// Bytes, in rows: forward 2, backward 3 (x, d_y, d_x) and 4 / (32 x element size) for the parts.
// Launch: 256 threads a block; backward has dim fp32 of shared memory (28 KB at dim 7168).
#include "kernels/cuda/rms_norm.cuh"

#include "kernels/cuda/pieces.cuh"

namespace cohort::kernels::COHORT_DEVICE {
namespace {

constexpr int kThreads = 256, kRowsOfBlock = 32;

/// The sum over the block, in each thread; a barrier ends it, so it can be called again.
__device__ inline float block_sum(float v) {
  COHORT_SHARED(float[kThreads / 32], of_warp);
  v = warp_sum(v);
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = v;
  __syncthreads();
  float sum = 0;
#pragma unroll
  for (int w = 0; w < kThreads / 32; ++w) sum += of_warp[w];
  __syncthreads();
  return sum;
}

template <class T, int N>
__global__ void forward_kernel(
    const T* x, int64_t x_stride, const T* weight, int64_t dim, float eps, T* y, float* r) {
  const int64_t row = blockIdx.x;
  x += row * x_stride;
  y += row * dim;
  const int64_t end = kPlanted<Fault::kTail> ? dim - N : dim;
  float squares = 0;
  for (int64_t d = threadIdx.x * N; d < end; d += kThreads * N) {
    float v[N];
    load_piece(x + d, v);
#pragma unroll
    for (int i = 0; i < N; ++i) squares = fmaf(v[i], v[i], squares);
  }
  const float scale = 1.0f / sqrtf(block_sum(squares) / static_cast<float>(dim) + eps);
  for (int64_t d = threadIdx.x * N; d < dim; d += kThreads * N) {
    float v[N], w[N];
    load_piece(x + d, v);
    load_piece(weight + d, w);
#pragma unroll
    for (int i = 0; i < N; ++i) v[i] = w[i] * (v[i] * scale);
    store_piece(y + d, v);
  }
  if (r && threadIdx.x == 0) r[row] = scale;
}

/// One row's d_x; adds to `partial` where that is not null.
template <class T, int N>
__device__ void backward_row(
    const T* x, const T* weight, float r, const T* d_y, int64_t dim, T* d_x, float* partial) {
  float products = 0;
  for (int64_t d = threadIdx.x * N; d < dim; d += kThreads * N) {
    float v[N], w[N], dy[N];
    load_piece(x + d, v);
    load_piece(weight + d, w);
    load_piece(d_y + d, dy);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      products = fmaf(dy[i] * w[i], v[i], products);
      if (partial) partial[d + i] = fmaf(dy[i], v[i] * r, partial[d + i]);
    }
  }
  if (!d_x) return;
  const float pull = block_sum(products) / static_cast<float>(dim) * r * r;
  for (int64_t d = threadIdx.x * N; d < dim; d += kThreads * N) {
    float v[N], w[N], dy[N];
    load_piece(x + d, v);
    load_piece(weight + d, w);
    load_piece(d_y + d, dy);
#pragma unroll
    for (int i = 0; i < N; ++i) v[i] = (dy[i] * w[i] - v[i] * pull) * r;
    store_piece(d_x + d, v);
  }
}

template <class T, int N>
__global__ void backward_kernel(const T* x,
                                int64_t x_stride,
                                const T* weight,
                                const float* r,
                                const T* d_y,
                                int64_t rows,
                                int64_t dim,
                                T* d_x,
                                float* partials) {
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kRowsOfBlock;
  float* partial = partials ? dynamic_shared<float>() : nullptr;
  for (int64_t d = threadIdx.x * N; partials && d < dim; d += kThreads * N)
    for (int i = 0; i < N; ++i) partial[d + i] = 0;
  const int64_t end = first + kRowsOfBlock < rows ? first + kRowsOfBlock : rows;
  for (int64_t row = first; row < (kPlanted<Fault::kTail> ? end - 1 : end); ++row)
    backward_row<T, N>(x + row * x_stride,
                       weight,
                       r[row],
                       d_y + row * dim,
                       dim,
                       d_x ? d_x + row * dim : nullptr,
                       partial);
  for (int64_t d = threadIdx.x * N; partials && d < dim; d += kThreads * N)
    for (int i = 0; i < N; ++i) partials[blockIdx.x * dim + d + i] = partial[d + i];
}

template <class T>
__global__ void add_partials_kernel(const float* partials,
                                    int64_t parts,
                                    int64_t dim,
                                    T* d_weight) {
  const int64_t d = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (d >= dim) return;
  float sum[1] = {0};
  for (int64_t p = 0; p < parts; ++p) sum[0] += partials[p * dim + d];
  store_piece(d_weight + d, sum);
}

int64_t parts_of(int64_t rows) { return (rows + kRowsOfBlock - 1) / kRowsOfBlock; }

}  // namespace

template <class T>
void rms_norm_forward(const T* x,
                      int64_t x_stride,
                      const T* weight,
                      int64_t rows,
                      int64_t dim,
                      float eps,
                      T* y,
                      float* r,
                      Stream stream) {
  if (rows == 0 || dim == 0) return;
  const bool wide = in_wide_pieces<T>(dim, x, weight, y) && in_wide_pieces<T>(x_stride);
  launch(wide ? forward_kernel<T, kWide<T>> : forward_kernel<T, 1>,
         Grid(static_cast<unsigned>(rows), kThreads, 0, stream),
         x,
         x_stride,
         weight,
         dim,
         eps,
         y,
         r);
}

size_t rms_norm_workspace(int64_t rows, int64_t dim) {
  return static_cast<size_t>(parts_of(rows) * dim) * sizeof(float);
}

template <class T>
void rms_norm_backward(const T* x,
                       int64_t x_stride,
                       const T* weight,
                       const float* r,
                       const T* d_y,
                       int64_t rows,
                       int64_t dim,
                       T* d_x,
                       T* d_weight,
                       void* workspace,
                       Stream stream) {
  if (dim == 0) return;
  const bool wide = in_wide_pieces<T>(dim, x, weight, d_y, d_x) && in_wide_pieces<T>(x_stride);
  auto* partials = d_weight ? static_cast<float*>(workspace) : nullptr;
  if (rows > 0)
    launch(wide ? backward_kernel<T, kWide<T>> : backward_kernel<T, 1>,
           Grid(static_cast<unsigned>(parts_of(rows)),
                kThreads,
                d_weight ? static_cast<size_t>(dim) * sizeof(float) : 0,
                stream),
           x,
           x_stride,
           weight,
           r,
           d_y,
           rows,
           dim,
           d_x,
           partials);
  if (d_weight)
    launch(add_partials_kernel<T>,
           Grid(static_cast<unsigned>((dim + kThreads - 1) / kThreads), kThreads, 0, stream),
           partials,
           parts_of(rows),
           dim,
           d_weight);
}

#define COHORT_INSTANTIATE(T)                                                    \
  template void rms_norm_forward(                                                \
      const T*, int64_t, const T*, int64_t, int64_t, float, T*, float*, Stream); \
  template void rms_norm_backward(const T*,                                      \
                                  int64_t,                                       \
                                  const T*,                                      \
                                  const float*,                                  \
                                  const T*,                                      \
                                  int64_t,                                       \
                                  int64_t,                                       \
                                  T*,                                            \
                                  T*,                                            \
                                  void*,                                         \
                                  Stream);
COHORT_INSTANTIATE(float)
COHORT_INSTANTIATE(bf16)
#undef COHORT_INSTANTIATE

}  // namespace cohort::kernels::COHORT_DEVICE
