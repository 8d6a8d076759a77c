// AVX2 + FMA kernels of the fp32 product.
#include "kernels/cpu/gemm_kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define COHORT_TARGET __attribute__((target("avx2,fma")))
#define COHORT_INLINE COHORT_TARGET inline __attribute__((always_inline))

namespace cohort::kernels {
namespace {

constexpr int kLanes = 8;
constexpr int kMaxRows = 6;
constexpr int vectors_of(int rows) { return rows == 1 ? 8 : rows == 2 ? 4 : rows <= 4 ? 3 : 2; }

using Vector = __m256;
using Mask = __m256i;
COHORT_INLINE Mask mask_of(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
COHORT_INLINE Vector zero() { return _mm256_setzero_ps(); }
COHORT_INLINE Vector splat(float x) { return _mm256_set1_ps(x); }
COHORT_INLINE Vector load(const float* p) { return _mm256_loadu_ps(p); }
COHORT_INLINE Vector load_some(const float* p, Mask m) { return _mm256_maskload_ps(p, m); }
COHORT_INLINE void store(float* p, Vector v) { _mm256_storeu_ps(p, v); }
COHORT_INLINE void store_some(float* p, Mask m, Vector v) { _mm256_maskstore_ps(p, m, v); }
COHORT_INLINE Vector multiply_add(Vector a, Vector b, Vector c) { return _mm256_fmadd_ps(a, b, c); }

#include "kernels/cpu/gemm_tile.h"

/// Transposes 8 x 8 floats in registers: r[i] holds row i before, column i after.
COHORT_INLINE void transpose(Vector* r) {
  Vector t[8];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    t[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    r[4 * i] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0x44);
    r[4 * i + 1] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0xee);
    r[4 * i + 2] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0x44);
    r[4 * i + 3] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0xee);
  }
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    t[j] = _mm256_permute2f128_ps(r[j], r[4 + j], 0x20);
    t[4 + j] = _mm256_permute2f128_ps(r[j], r[4 + j], 0x31);
  }
#pragma GCC unroll 8
  for (int j = 0; j < 8; ++j) r[j] = t[j];
}

COHORT_TARGET void pack_columns(const float* src, int64_t ld, int64_t k, int64_t n, float* panels) {
  for (int64_t n0 = 0; n0 < n; n0 += 8, panels += 8 * k) {
    const float* rows = src + n0 * ld;
    const int count = n - n0 < 8 ? static_cast<int>(n - n0) : 8;
    int64_t k0 = 0;
    if (count == 8)
      for (; k0 + 8 <= k; k0 += 8) {
        Vector r[8];
#pragma GCC unroll 8
        for (int i = 0; i < 8; ++i) r[i] = load(rows + i * ld + k0);
        transpose(r);
#pragma GCC unroll 8
        for (int i = 0; i < 8; ++i) store(panels + (k0 + i) * 8, r[i]);
      }
    for (; k0 < k; ++k0)
      for (int i = 0; i < 8; ++i) panels[k0 * 8 + i] = i < count ? rows[i * ld + k0] : 0.0f;
  }
}

}  // namespace

const GemmKernels gemm_avx2 = {kLanes, kMaxRows, tile_vectors, run_tile, pack_rows, pack_columns};

}  // namespace cohort::kernels
#endif
