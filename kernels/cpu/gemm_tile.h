// The tile kernel, written once over a vector type. Each gemm_<instruction set>.cpp includes this
// after it has defined, in its own anonymous namespace:
//   COHORT_TARGET             the function attribute that switches the instruction set on
//   kLanes, kMaxRows          floats in a vector, rows of the largest tile
//   vectors_of(rows)          constexpr, see GemmKernels::vectors
//   Vector, Mask              types; mask_of(n): the first n lanes, 0 < n <= kLanes
//   zero() splat(x) load(p) load_some(p, mask) store(p, v) store_some(p, mask, v) multiply_add(a,
//   b, c)
// Functions carry the attribute one by one, because a whole file compiled for AVX-512 could leave
// AVX-512 copies of shared inline functions in the binary.
//
// Tile: rows x vectors sums in registers. For each k: load `vectors` vectors of B, then for each
// row splat one element of A and multiply-add. 14 x 2 on AVX-512 reads 16 operands for 28 FMAs,
// under the two loads and two FMAs that a core does each cycle, and 28 sums cover an FMA's latency
// thrice.

template <int kRows, int kVectors>
COHORT_TARGET void tile_kernel(const GemmTile& t) {
  Vector sum[kRows][kVectors];
  const Mask last = mask_of(static_cast<int>(t.n - (kVectors - 1) * kLanes));
  if (t.accumulate) {
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
        const float* c = t.c + i * t.ldc + v * kLanes;
        sum[i][v] = v + 1 < kVectors ? load(c) : load_some(c, last);
      }
    }
  } else {
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) sum[i][v] = zero();
    }
  }

  // Rows are reached as base[i / 5] + (i % 5) * a_row: few enough registers for x86 addressing.
  const int64_t row = t.a_row, row3 = 3 * t.a_row;
  const float* base[3] = {t.a, t.a + 5 * row, t.a + 10 * row};
  const float* b = t.b;
  for (int64_t k = 0; k < t.k; ++k) {
    Vector bv[kVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) bv[v] = load(b + v * t.b_panel);
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      const float* p = base[i / 5];
      const Vector av = splat(i % 5 == 3 ? p[row3] : p[(i % 5) * row]);
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) sum[i][v] = multiply_add(av, bv[v], sum[i][v]);
    }
    b += t.b_k;
#pragma GCC unroll 3
    for (int g = 0; g < 3; ++g)
      if (g * 5 < kRows) base[g] += t.a_k;
  }

#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      float* c = t.c + i * t.ldc + v * kLanes;
      if (v + 1 < kVectors)
        store(c, sum[i][v]);
      else
        store_some(c, last, sum[i][v]);
    }
  }
}

using TileKernel = void (*)(const GemmTile&);
constexpr int kMaxVectors = 8;

struct TileTable {
  TileKernel at[kMaxRows][kMaxVectors] = {};
};

template <int kRows, int kVectors>
constexpr void fill_tiles(TileTable& table) {
  table.at[kRows - 1][kVectors - 1] = &tile_kernel<kRows, kVectors>;
  if constexpr (kVectors < vectors_of(kRows))
    fill_tiles<kRows, kVectors + 1>(table);
  else if constexpr (kRows < kMaxRows)
    fill_tiles<kRows + 1, 1>(table);
}

constexpr TileTable kTiles = [] {
  TileTable table;
  fill_tiles<1, 1>(table);
  return table;
}();

void run_tile(int rows, int vectors, const GemmTile& tile) {
  kTiles.at[rows - 1][vectors - 1](tile);
}

int tile_vectors(int rows) { return vectors_of(rows); }

/// Four panels abreast: whole stretches of a row are read, and few enough places written to.
COHORT_TARGET void pack_rows(
    const float* src, int64_t ld, int64_t k, int64_t n, int64_t width, float* panels) {
  int64_t n0 = 0;
  for (; n0 + 3 * width + kLanes <= n; n0 += 4 * width, panels += 4 * kLanes * k)
    for (int64_t i = 0; i < k; ++i) {
#pragma GCC unroll 4
      for (int p = 0; p < 4; ++p)
        store(panels + (p * k + i) * kLanes, load(src + i * ld + n0 + p * width));
    }
  for (; n0 < n; n0 += width) {
    const Mask mask = mask_of(static_cast<int>(n - n0 < width ? n - n0 : width));
    for (int64_t i = 0; i < k; ++i, panels += kLanes)
      store(panels, load_some(src + i * ld + n0, mask));
  }
}
