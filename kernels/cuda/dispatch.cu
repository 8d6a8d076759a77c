// Token rows to their experts (gather) and home again (weighted sum).
//
// Algorithm: a block of 128 threads takes one row and walks it in 16-byte pieces, so that every
// access of a warp is 512 contiguous bytes. gather moves 2 x rows x D elements; combine reads K
// rows and writes one, adding in fp32 registers in the order of k: no atomics, so the result is the
// same each time. Both are bound by memory: FLOPs (2 T K D) are a few per cent of what the bytes
// allow. Launch: grid = rows, block = 128; registers hold one piece, no shared memory.
#include "kernels/cuda/dispatch.cuh"

namespace cohort::kernels::cuda {
namespace {

constexpr int kThreads = 128;

/// Sixteen bytes of a row as fp32 values.
template <class Row>
struct Piece;

template <>
struct Piece<float> {
  static constexpr int kSize = 4;
  float value[kSize];
  __device__ explicit Piece(const uint4& raw) {
    value[0] = __uint_as_float(raw.x);
    value[1] = __uint_as_float(raw.y);
    value[2] = __uint_as_float(raw.z);
    value[3] = __uint_as_float(raw.w);
  }
  __device__ static uint4 pack(const float* v) {
    return {
        __float_as_uint(v[0]), __float_as_uint(v[1]), __float_as_uint(v[2]), __float_as_uint(v[3])};
  }
};

template <>
struct Piece<__nv_bfloat16> {
  static constexpr int kSize = 8;
  float value[kSize];
  __device__ explicit Piece(const uint4& raw) {
    const uint32_t word[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      value[2 * i] = __uint_as_float(word[i] << 16);
      value[2 * i + 1] = __uint_as_float(word[i] & 0xffff0000u);
    }
  }
  __device__ static uint32_t pair(float low, float high) {
    const __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
    return static_cast<uint32_t>(__bfloat16_as_ushort(both.y)) << 16 | __bfloat16_as_ushort(both.x);
  }
  __device__ static uint4 pack(const float* v) {
    return {pair(v[0], v[1]), pair(v[2], v[3]), pair(v[4], v[5]), pair(v[6], v[7])};
  }
};

__global__ void gather_kernel(
    const uint4* in, const int64_t* index, int64_t divisor, int64_t pieces, uint4* out) {
  const int64_t row = blockIdx.x;
  const uint4* from = in + index[row] / divisor * pieces;
  uint4* to = out + row * pieces;
  for (int64_t i = threadIdx.x; i < pieces; i += kThreads) to[i] = from[i];
}

template <class Row>
__global__ void combine_kernel(const uint4* rows,
                               const int64_t* place_of,
                               const float* gate,
                               int64_t K,
                               int64_t pieces,
                               uint4* out) {
  const int64_t t = blockIdx.x;
  for (int64_t i = threadIdx.x; i < pieces; i += kThreads) {
    float sum[Piece<Row>::kSize] = {};
    for (int64_t k = 0; k < K; ++k) {
      const float weight = gate ? gate[t * K + k] : 1.0f;
      const Piece<Row> piece(rows[place_of[t * K + k] * pieces + i]);
#pragma unroll
      for (int j = 0; j < Piece<Row>::kSize; ++j) sum[j] += weight * piece.value[j];
    }
    out[t * pieces + i] = Piece<Row>::pack(sum);
  }
}

template <class Row>
int64_t pieces_of(int64_t D) {
  return D * static_cast<int64_t>(sizeof(Row)) / 16;
}

}  // namespace

template <class Row>
void gather_rows(const Row* in,
                 const int64_t* index,
                 int64_t divisor,
                 int64_t num_rows,
                 int64_t D,
                 Row* out,
                 cudaStream_t stream) {
  if (num_rows == 0) return;
  gather_kernel<<<static_cast<unsigned>(num_rows), kThreads, 0, stream>>>(
      reinterpret_cast<const uint4*>(in),
      index,
      divisor,
      pieces_of<Row>(D),
      reinterpret_cast<uint4*>(out));
}

template <class Row>
void combine_rows(const Row* rows,
                  const int64_t* place_of,
                  const float* gate,
                  int64_t T,
                  int64_t K,
                  int64_t D,
                  Row* out,
                  cudaStream_t stream) {
  if (T == 0) return;
  combine_kernel<Row>
      <<<static_cast<unsigned>(T), kThreads, 0, stream>>>(reinterpret_cast<const uint4*>(rows),
                                                          place_of,
                                                          gate,
                                                          K,
                                                          pieces_of<Row>(D),
                                                          reinterpret_cast<uint4*>(out));
}

#define COHORT_INSTANTIATE(Row)                                                   \
  template void gather_rows(                                                      \
      const Row*, const int64_t*, int64_t, int64_t, int64_t, Row*, cudaStream_t); \
  template void combine_rows(                                                     \
      const Row*, const int64_t*, const float*, int64_t, int64_t, int64_t, Row*, cudaStream_t);
COHORT_INSTANTIATE(float)
COHORT_INSTANTIATE(__nv_bfloat16)
#undef COHORT_INSTANTIATE

}  // namespace cohort::kernels::cuda
