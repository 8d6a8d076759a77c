// The matrix products inside a block of attention: one tile of C, kTileRows rows by one panel, in
// registers. Operands lie in the first- or second-level cache, packed and padded by the caller, so
// there are no ragged edges. 8 rows x 2 vectors are 16 independent chains, twice what two FMA pipes
// of latency four need, and read 10 operands for 16 FMAs.
#pragma once
#include <cstdint>

#include "kernels/cpu/simd.h"

namespace cohort::kernels {

inline constexpr int kTileRows = 8;
/// Columns of a panel.
template <class A>
inline constexpr int64_t kPanel = 2 * kLanes<A>;

/// How the left operand lies in memory: A(row, k) = a[row * ld + k] or a[k * ld + row].
enum class LeftOperand { kRows, kColumns };

/// C[kTileRows, kPanel] (+)= sum over k < depth of A(row, k) B[k], B's rows b_ld elements apart.
template <LeftOperand kLeft, class A>
inline void tile_product(int64_t depth,
                         const A* a,
                         int64_t a_ld,
                         const A* b,
                         int64_t b_ld,
                         A* c,
                         int64_t c_ld,
                         bool accumulate) {
  constexpr int L = kLanes<A>;
  Vector<A> low[kTileRows], high[kTileRows];
#pragma GCC unroll 8
  for (int r = 0; r < kTileRows; ++r) {
    low[r] = accumulate ? load(c + r * c_ld) : Vector<A>{};
    high[r] = accumulate ? load(c + r * c_ld + L) : Vector<A>{};
  }
  for (int64_t k = 0; k < depth; ++k) {
    const Vector<A> b_low = load(b), b_high = load(b + L);
#pragma GCC unroll 8
    for (int r = 0; r < kTileRows; ++r) {
      const Vector<A> x = splat<A>(kLeft == LeftOperand::kRows ? a[r * a_ld] : a[r]);
      low[r] += x * b_low;
      high[r] += x * b_high;
    }
    a += kLeft == LeftOperand::kRows ? 1 : a_ld;
    b += b_ld;
  }
#pragma GCC unroll 8
  for (int r = 0; r < kTileRows; ++r) {
    store(c + r * c_ld, low[r]);
    store(c + r * c_ld + L, high[r]);
  }
}

/// The transpose of x [rows, ld] (first `dim` columns), cut into panels: panels[rows /
/// kPanel][dim][kPanel]. rows is a multiple of kPanel.
template <class A>
void to_panels(const A* x, int64_t ld, int64_t rows, int64_t dim, A* panels) {
  for (int64_t j = 0; j < rows; j += kPanel<A>)
    for (int64_t d = 0; d < dim; ++d) {
      A* to = panels + j * dim + d * kPanel<A>;
      for (int64_t i = 0; i < kPanel<A>; ++i) to[i] = x[(j + i) * ld + d];
    }
}

}  // namespace cohort::kernels
