// Token rows to their experts and home again.
//
// Algorithm: a power of two of threads, at least a warp, takes a row and walks it in 16-byte
// pieces: each access of a warp is 512 contiguous bytes, and four of them are under way in a thread
// before the first is used. combine reads K rows and writes one, adding in fp32 registers in the
// order of k: no atomics, so the result is the same each time. Its backward holds a piece of d_out
// and goes over the K rows with it; the K dot products end in a reduction over the row's threads,
// whose order is fixed.
//
// Bytes, in rows of D: gather and scatter 2 a row; combine T (K + 1); its backward T (2 K + 1). All
// are bound by memory: FLOPs (2 T K D and 3 T K D) are a few per cent of what the bytes allow.
// Launch: blocks of 256 threads, one row each from 256 pieces up (bf16: D >= 2048), 2 to 8 rows
// below; 256 bytes of shared memory in the backward, none elsewhere.
#include "kernels/cuda/dispatch.cuh"

#include "kernels/cuda/pieces.cuh"

namespace cohort::kernels::COHORT_DEVICE {
namespace {

constexpr int kInFlight = 4;

/// from and to are rows of `pieces`; the row's threads copy them.
template <class Piece>
__device__ void copy_row(const Piece* from, int64_t pieces, Piece* to) {
  const int64_t step = blockDim.x;
  const int64_t end = kPlanted<Fault::kTail> ? pieces - 1 : pieces;
  for (int64_t i = threadIdx.x; i < end; i += step * kInFlight) {
    Piece held[kInFlight];
#pragma unroll
    for (int j = 0; j < kInFlight; ++j)
      if (i + j * step < end) held[j] = from[i + j * step];
#pragma unroll
    for (int j = 0; j < kInFlight; ++j)
      if (i + j * step < end) to[i + j * step] = held[j];
  }
}

template <class Piece>
__global__ void gather_kernel(const Piece* in,
                              const int64_t* index,
                              int64_t divisor,
                              int64_t num_rows,
                              int64_t pieces,
                              Piece* out) {
  const int64_t row = row_of_thread();
  if (row >= num_rows) return;
  copy_row(in + index[row] / divisor * pieces, pieces, out + row * pieces);
}

template <class Piece>
__global__ void scatter_kernel(
    const Piece* in, const int64_t* index, int64_t num_rows, int64_t pieces, Piece* out) {
  const int64_t row = row_of_thread();
  if (row >= num_rows) return;
  copy_row(in + row * pieces, pieces, out + index[row] * pieces);
}

template <class Row, int N>
__global__ void combine_kernel(const Row* rows,
                               const int64_t* place_of,
                               const float* gate,
                               int64_t T,
                               int64_t K,
                               int64_t D,
                               Row* out) {
  const int64_t t = row_of_thread();
  if (t >= T) return;
  const int64_t* place = place_of + t * K;
  for (int64_t d = threadIdx.x * N; d < D; d += blockDim.x * N) {
    float sum[N] = {};
    const int64_t last = kPlanted<Fault::kTail> ? K - 1 : K;
    for (int64_t first = 0; first < last; first += kInFlight) {
      float piece[kInFlight][N];
#pragma unroll
      for (int j = 0; j < kInFlight; ++j)
        if (first + j < last) load_piece(rows + place[first + j] * D + d, piece[j]);
#pragma unroll
      for (int j = 0; j < kInFlight; ++j) {
        if (first + j >= last) break;
        const float weight = gate ? gate[t * K + first + j] : 1.0f;
#pragma unroll
        for (int i = 0; i < N; ++i) sum[i] = fmaf(weight, piece[j][i], sum[i]);
      }
    }
    store_piece(out + t * D + d, sum);
  }
}

constexpr int kChunk = 8;  // experts of a token that one walk over d_out serves

/// dot[k] of the row's threads into sum[k]; every thread of the block takes part.
__device__ inline void reduce_over_row(float (&dot)[kChunk], int64_t count, float* to) {
  COHORT_SHARED(float[kRowThreads / 32][kChunk], partial);
  const unsigned warps_of_row = blockDim.x / 32;
  const unsigned warp = (threadIdx.y * blockDim.x + threadIdx.x) / 32, lane = threadIdx.x % 32;
#pragma unroll
  for (int k = 0; k < kChunk; ++k) {
    const float sum = warp_sum(dot[k]);
    if (lane == 0) partial[warp][k] = sum;
  }
  __syncthreads();
  if (threadIdx.x < count) {
    float sum = 0;
    for (unsigned w = 0; w < warps_of_row; ++w)
      sum += partial[threadIdx.y * warps_of_row + w][threadIdx.x];
    to[threadIdx.x] = sum;
  }
  __syncthreads();  // `partial` may be written again
}

template <class Row, int N>
__global__ void combine_backward_kernel(const Row* d_out,
                                        const Row* rows,
                                        const int64_t* place_of,
                                        const float* gate,
                                        int64_t T,
                                        int64_t K,
                                        int64_t D,
                                        Row* d_rows,
                                        float* d_gate) {
  const int64_t t = row_of_thread();
  const bool there = t < T;  // all stay for the barriers
  for (int64_t first = 0; first < K; first += kChunk) {
    const int64_t count = K - first < kChunk ? K - first : kChunk, at = t * K + first;
    float dot[kChunk] = {};
    const int64_t end = !there ? 0 : kPlanted<Fault::kTail> ? D - N : D;
    for (int64_t d = threadIdx.x * N; d < end; d += blockDim.x * N) {
      float gradient[N];
      load_piece(d_out + t * D + d, gradient);
#pragma unroll
      for (int k = 0; k < kChunk; ++k) {
        if (k >= count) break;
        const int64_t row = place_of[at + k] * D + d;
        const float weight = gate[at + k];
        float piece[N], scaled[N];
        load_piece(rows + row, piece);
#pragma unroll
        for (int i = 0; i < N; ++i) {
          dot[k] = fmaf(gradient[i], piece[i], dot[k]);
          scaled[i] = weight * gradient[i];
        }
        store_piece(d_rows + row, scaled);
      }
    }
    reduce_over_row(dot, there ? count : 0, d_gate + at);
  }
}

/// Copies whole rows in the widest pieces that fit: 16 bytes, else 4, else 2.
template <class Row, class Work>
void with_copy_piece(int64_t D, const Row* in, const Row* out, const Work& work) {
  if (in_wide_pieces<Row>(D, in, out))
    work(uint4{}, D / kWide<Row>);
  else if (sizeof(Row) == 4)
    work(uint32_t{}, D);
  else
    work(uint16_t{}, D);
}

}  // namespace

template <class Row>
void gather_rows(const Row* in,
                 const int64_t* index,
                 int64_t divisor,
                 int64_t num_rows,
                 int64_t D,
                 Row* out,
                 Stream stream) {
  if (num_rows == 0 || D == 0) return;
  with_copy_piece(D, in, out, [&](auto kind, int64_t pieces) {
    using Piece = decltype(kind);
    const dim3 threads = threads_for_rows(pieces);
    launch(gather_kernel<Piece>,
           Grid(blocks_for_rows(num_rows, threads), threads, 0, stream, "gather_rows"),
           reinterpret_cast<const Piece*>(in),
           index,
           divisor,
           num_rows,
           pieces,
           reinterpret_cast<Piece*>(out));
  });
}

template <class Row>
void scatter_rows(
    const Row* in, const int64_t* index, int64_t num_rows, int64_t D, Row* out, Stream stream) {
  if (num_rows == 0 || D == 0) return;
  with_copy_piece(D, in, out, [&](auto kind, int64_t pieces) {
    using Piece = decltype(kind);
    const dim3 threads = threads_for_rows(pieces);
    launch(scatter_kernel<Piece>,
           Grid(blocks_for_rows(num_rows, threads), threads, 0, stream, "scatter_rows"),
           reinterpret_cast<const Piece*>(in),
           index,
           num_rows,
           pieces,
           reinterpret_cast<Piece*>(out));
  });
}

template <class Row>
void combine_rows(const Row* rows,
                  const int64_t* place_of,
                  const float* gate,
                  int64_t T,
                  int64_t K,
                  int64_t D,
                  Row* out,
                  Stream stream) {
  if (T == 0 || D == 0) return;
  const bool wide = in_wide_pieces<Row>(D, rows, out);
  const dim3 threads = threads_for_rows(wide ? D / kWide<Row> : D);
  launch(wide ? combine_kernel<Row, kWide<Row>> : combine_kernel<Row, 1>,
         Grid(blocks_for_rows(T, threads), threads, 0, stream),
         rows,
         place_of,
         gate,
         T,
         K,
         D,
         out);
}

template <class Row>
void combine_rows_backward(const Row* d_out,
                           const Row* rows,
                           const int64_t* place_of,
                           const float* gate,
                           int64_t T,
                           int64_t K,
                           int64_t D,
                           Row* d_rows,
                           float* d_gate,
                           Stream stream) {
  if (T == 0) return;
  const bool wide = in_wide_pieces<Row>(D, d_out, rows, d_rows);
  const dim3 threads = threads_for_rows(wide ? D / kWide<Row> : D);
  launch(wide ? combine_backward_kernel<Row, kWide<Row>> : combine_backward_kernel<Row, 1>,
         Grid(blocks_for_rows(T, threads), threads, 0, stream),
         d_out,
         rows,
         place_of,
         gate,
         T,
         K,
         D,
         d_rows,
         d_gate);
}

#define COHORT_INSTANTIATE(Row)                                                                   \
  template void gather_rows(const Row*, const int64_t*, int64_t, int64_t, int64_t, Row*, Stream); \
  template void scatter_rows(const Row*, const int64_t*, int64_t, int64_t, Row*, Stream);         \
  template void combine_rows(                                                                     \
      const Row*, const int64_t*, const float*, int64_t, int64_t, int64_t, Row*, Stream);         \
  template void combine_rows_backward(const Row*,                                                 \
                                      const Row*,                                                 \
                                      const int64_t*,                                             \
                                      const float*,                                               \
                                      int64_t,                                                    \
                                      int64_t,                                                    \
                                      int64_t,                                                    \
                                      Row*,                                                       \
                                      float*,                                                     \
                                      Stream);
COHORT_INSTANTIATE(float)
COHORT_INSTANTIATE(bf16)
#undef COHORT_INSTANTIATE

}  // namespace cohort::kernels::COHORT_DEVICE
