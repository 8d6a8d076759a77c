// Sixteen bytes of a row at a time, as fp32 values; what the kernels over rows share. A row whose
// width or address does not allow it is walked element by element instead: the same kernels with N
// = 1.
#pragma once
#include "kernels/cuda/ptx.cuh"

#if !COHORT_ON_DEVICE || defined(__CUDACC__)
namespace cohort::kernels::COHORT_DEVICE {

/// Elements of 16 bytes.
template <class Row>
constexpr int kWide = 16 / static_cast<int>(sizeof(Row));

__device__ inline void load_piece(const float* p, float (&v)[4]) {
  const float4 raw = *reinterpret_cast<const float4*>(p);
  v[0] = raw.x, v[1] = raw.y, v[2] = raw.z, v[3] = raw.w;
}
__device__ inline void load_piece(const bf16* p, float (&v)[8]) {
  const uint4 raw = *reinterpret_cast<const uint4*>(p);
  const uint32_t word[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    v[2 * i] = __uint_as_float(word[i] << 16);
    v[2 * i + 1] = __uint_as_float(word[i] & 0xffff0000u);
  }
}
__device__ inline void load_piece(const float* p, float (&v)[1]) { v[0] = *p; }
__device__ inline void load_piece(const bf16* p, float (&v)[1]) { v[0] = __bfloat162float(*p); }

__device__ inline void store_piece(float* p, const float (&v)[4]) {
  *reinterpret_cast<float4*>(p) = make_float4(v[0], v[1], v[2], v[3]);
}
__device__ inline void store_piece(bf16* p, const float (&v)[8]) {
  *reinterpret_cast<uint4*>(p) = make_uint4(pack_bf16x2(v[0], v[1]),
                                            pack_bf16x2(v[2], v[3]),
                                            pack_bf16x2(v[4], v[5]),
                                            pack_bf16x2(v[6], v[7]));
}
__device__ inline void store_piece(float* p, const float (&v)[1]) { *p = v[0]; }
__device__ inline void store_piece(bf16* p, const float (&v)[1]) { *p = __float2bfloat16_rn(v[0]); }

/// The same in each lane, added in an order that does not vary.
__device__ inline float warp_sum(float v) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2)
    v += __shfl_xor_sync(0xffffffffu, v, distance);
  return v;
}
__device__ inline float warp_max(float v) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2)
    v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, distance));
  return v;
}

/// True if rows of D elements from each pointer can be walked in pieces of 16 bytes.
template <class Row, class... Pointers>
bool in_wide_pieces(int64_t D, const Pointers*... rows) {
  return D * static_cast<int64_t>(sizeof(Row)) % 16 == 0 &&
         ((reinterpret_cast<uintptr_t>(rows) % 16 == 0) && ...);
}

constexpr int kRowThreads = 256;

/// Blocks of 256 threads for rows of `pieces`: a power of two of threads, at least a warp, works on
/// a row (threadIdx.x), and the rest on the rows beside it (threadIdx.y).
inline dim3 threads_for_rows(int64_t pieces) {
  unsigned width = 32;
  while (width < kRowThreads && width < pieces) width *= 2;
  return dim3(width, kRowThreads / width);
}
inline unsigned blocks_for_rows(int64_t rows, dim3 threads) {
  return static_cast<unsigned>((rows + threads.y - 1) / threads.y);
}
__device__ inline int64_t row_of_thread() {
  return static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
}

}  // namespace cohort::kernels::COHORT_DEVICE
#endif
