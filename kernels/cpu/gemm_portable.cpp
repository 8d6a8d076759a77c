// The fp32 product in plain C++ with the compiler's vector extension: any CPU.
#include "kernels/cpu/gemm_kernels.h"

#define COHORT_TARGET

namespace cohort::kernels {
namespace {

constexpr int kLanes = 4;
constexpr int kMaxRows = 4;
constexpr int vectors_of(int rows) { return rows <= 2 ? 4 : 2; }

typedef float Vector __attribute__((vector_size(16), aligned(4)));
using Mask = int;
inline Mask mask_of(int n) { return n; }
inline Vector zero() { return Vector{}; }
inline Vector splat(float x) { return Vector{x, x, x, x}; }
inline Vector load(const float* p) { return *reinterpret_cast<const Vector*>(p); }
inline Vector load_some(const float* p, Mask n) {
  Vector v{};
  for (int i = 0; i < n; ++i) v[i] = p[i];
  return v;
}
inline void store(float* p, Vector v) { *reinterpret_cast<Vector*>(p) = v; }
inline void store_some(float* p, Mask n, Vector v) {
  for (int i = 0; i < n; ++i) p[i] = v[i];
}
// Fused wherever the target can fuse, and nowhere else: the compiler is left no choice between the
// two, because equal rows must get equal bits from every tile.
inline Vector multiply_add(Vector a, Vector b, Vector c) {
#ifdef __FP_FAST_FMAF
  for (int i = 0; i < kLanes; ++i) c[i] = __builtin_fmaf(a[i], b[i], c[i]);
  return c;
#else
  return a * b + c;
#endif
}

#include "kernels/cpu/gemm_tile.h"

void pack_columns(const float* src, int64_t ld, int64_t k, int64_t n, float* panels) {
  for (int64_t n0 = 0; n0 < n; n0 += kLanes)
    for (int64_t i = 0; i < k; ++i)
      for (int64_t j = n0; j < n0 + kLanes; ++j) *panels++ = j < n ? src[j * ld + i] : 0.0f;
}

}  // namespace

const GemmKernels gemm_portable = {
    kLanes, kMaxRows, tile_vectors, run_tile, pack_rows, pack_columns};

}  // namespace cohort::kernels
