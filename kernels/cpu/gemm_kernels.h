// What one instruction set provides to gemm.cpp.
#pragma once
#include <cstdint>

namespace cohort::kernels {

/// One tile: C[rows, n] from `rows` rows of A and packed panels of B.
struct GemmTile {
  int64_t k;
  const float* a;  ///< A(i, k) = a[i * a_row + k * a_k]
  int64_t a_row, a_k;
  const float* b;  ///< B(k, n) = b[(n / lanes) * b_panel + k * b_k + n % lanes]
  int64_t b_panel, b_k;
  float* c;
  int64_t ldc;
  int64_t n;        ///< Columns that exist; the last vector of the tile may reach beyond them.
  bool accumulate;  ///< Sums start from C instead of 0.
};

struct GemmKernels {
  int lanes;     ///< Floats in a vector = width of a panel of B.
  int max_rows;  ///< Rows of the largest tile, at most `lanes`.
  /// Vectors across a tile of so many rows: enough independent sums to hide the latency of an FMA,
  /// few enough for the registers. Does not grow with the rows.
  int (*vectors)(int rows);
  void (*tile)(int rows, int vectors, const GemmTile& tile);
  /// src [k, n] row-major -> panels of `width` <= lanes columns, [k, lanes] each. What fills a
  /// panel up is zero in the last one, and anything finite or not that src holds there in the
  /// others.
  void (*pack_rows)(
      const float* src, int64_t ld, int64_t k, int64_t n, int64_t width, float* panels);
  /// src [n, k] -> panels of `lanes` columns, [k, lanes] each, filled up with zeros.
  void (*pack_columns)(const float* src, int64_t ld, int64_t k, int64_t n, float* panels);
  /// May be null. c[n] = a[k] times b [n, k] transposed, for n a multiple of 32 and k of 8, with
  /// the same bits as a tile of one row.
  void (*row_by_columns)(const float* a,
                         const float* b,
                         int64_t ldb,
                         int64_t k,
                         int64_t n,
                         float* c,
                         bool accumulate) = nullptr;
};

extern const GemmKernels gemm_portable;
#if defined(__x86_64__)
extern const GemmKernels gemm_avx2;    // needs AVX2 and FMA
extern const GemmKernels gemm_avx512;  // needs AVX512F
#endif

}  // namespace cohort::kernels
