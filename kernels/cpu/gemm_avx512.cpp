// AVX-512 kernels of the fp32 product. Zen 4/5 and Intel's server cores since Skylake.
#include "kernels/cpu/gemm_kernels.h"

#if defined(__x86_64__)
// GCC 12 takes the deliberately undefined operand inside its own shuffles for a mistake (GCC bug
// 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>

#define COHORT_TARGET __attribute__((target("avx512f,fma")))
#define COHORT_INLINE COHORT_TARGET inline __attribute__((always_inline))

namespace cohort::kernels {
namespace {

constexpr int kLanes = 16;
constexpr int kMaxRows = 14;
constexpr int vectors_of(int rows) { return rows == 1 ? 8 : rows <= 6 ? 4 : rows <= 9 ? 3 : 2; }

using Vector = __m512;
using Mask = __mmask16;
COHORT_INLINE Mask mask_of(int n) { return static_cast<Mask>((1u << n) - 1); }
COHORT_INLINE Vector zero() { return _mm512_setzero_ps(); }
COHORT_INLINE Vector splat(float x) { return _mm512_set1_ps(x); }
COHORT_INLINE Vector load(const float* p) { return _mm512_loadu_ps(p); }
COHORT_INLINE Vector load_some(const float* p, Mask m) { return _mm512_maskz_loadu_ps(m, p); }
COHORT_INLINE void store(float* p, Vector v) { _mm512_storeu_ps(p, v); }
COHORT_INLINE void store_some(float* p, Mask m, Vector v) { _mm512_mask_storeu_ps(p, m, v); }
COHORT_INLINE Vector multiply_add(Vector a, Vector b, Vector c) { return _mm512_fmadd_ps(a, b, c); }

#include "kernels/cpu/gemm_tile.h"

/// 16 rows of 8 floats at `src` -> 8 vectors of 16. Loading two half rows into one register
/// leaves 48 shuffles for a block of 16 x 16 instead of 64, and shuffles are what bounds this.
COHORT_INLINE void transpose_16x8(const float* src, int64_t ld, Vector* out) {
  Vector r[8], t[8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {  // r[s] = rows s and 4 + s, r[4 + s] = rows 8 + s and 12 + s
    const float* row = src + (i % 4 + i / 4 * 8) * ld;
    const __m512d low =
        _mm512_castpd256_pd512(_mm256_loadu_pd(reinterpret_cast<const double*>(row)));
    const __m256d high = _mm256_loadu_pd(reinterpret_cast<const double*>(row + 4 * ld));
    r[i] = _mm512_castpd_ps(_mm512_insertf64x4(low, high, 1));
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {  // pairs of rows
    t[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {  // fours: r[4 i + c] holds columns c and 4 + c, one a 128-bit lane
    const __m512d a = _mm512_castps_pd(t[4 * i]), b = _mm512_castps_pd(t[4 * i + 1]);
    const __m512d c = _mm512_castps_pd(t[4 * i + 2]), d = _mm512_castps_pd(t[4 * i + 3]);
    r[4 * i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
    r[4 * i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
    r[4 * i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
    r[4 * i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
  }
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    out[c] = _mm512_shuffle_f32x4(r[c], r[4 + c], 0x88);
    out[4 + c] = _mm512_shuffle_f32x4(r[c], r[4 + c], 0xdd);
  }
}

COHORT_TARGET void pack_columns(const float* src, int64_t ld, int64_t k, int64_t n, float* panels) {
  for (int64_t n0 = 0; n0 < n; n0 += 16, panels += 16 * k) {
    const float* rows = src + n0 * ld;
    const int64_t count = n - n0 < 16 ? n - n0 : 16;
    int64_t k0 = 0;
    if (count == 16)
      for (; k0 + 8 <= k; k0 += 8) {
        Vector block[8];
        transpose_16x8(rows + k0, ld, block);
#pragma GCC unroll 8
        for (int i = 0; i < 8; ++i) store(panels + (k0 + i) * 16, block[i]);
      }
    for (; k0 < k; ++k0)
      for (int64_t i = 0; i < 16; ++i) panels[k0 * 16 + i] = i < count ? rows[i * ld + k0] : 0.0f;
  }
}

/// One row of A: the transposed blocks go into the sums without a way through memory. Two panels at
/// a time, since one would wait for its own chain of FMAs.
COHORT_TARGET void row_by_columns(
    const float* a, const float* b, int64_t ld, int64_t k, int64_t n, float* c, bool accumulate) {
  for (int64_t n0 = 0; n0 < n; n0 += 32) {
    const float *low = b + n0 * ld, *high = low + 16 * ld;
    Vector sum[2] = {accumulate ? load(c + n0) : zero(), accumulate ? load(c + n0 + 16) : zero()};
    for (int64_t k0 = 0; k0 < k; k0 += 8) {
      Vector block[8];
      transpose_16x8(low + k0, ld, block);
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) sum[0] = multiply_add(splat(a[k0 + i]), block[i], sum[0]);
      transpose_16x8(high + k0, ld, block);
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) sum[1] = multiply_add(splat(a[k0 + i]), block[i], sum[1]);
    }
    store(c + n0, sum[0]);
    store(c + n0 + 16, sum[1]);
  }
}

}  // namespace

const GemmKernels gemm_avx512 = {
    kLanes, kMaxRows, tile_vectors, run_tile, pack_rows, pack_columns, row_by_columns};

}  // namespace cohort::kernels
#endif
