// Cache blocking and threads of the fp32 product (gemm.h); the arithmetic is in gemm_tile.h.
//
// The work is cut into tasks, each a block of one C that one thread computes alone:
//   for each block of k (up to 384):
//     pack that part of B into panels one vector wide            -> up to 384 KiB, stays in L2
//     for each run of row tiles (about 256 rows):
//       pack A where its layout is bad (see a_needs_packing)      -> stays in L2
//       for each strip of 2-8 panels (in L1), for each tile of rows: run the tile kernel
// Packing costs about k*n/6 cycles a task against m*n*k/32 for the arithmetic. Bytes from memory: A
// once for each 256 columns, B once a task, C once for each block of k.
#include "kernels/cpu/gemm.h"

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "kernels/cpu/gemm_kernels.h"

namespace cohort::kernels {
namespace {

constexpr int64_t kBlockK = 384;
constexpr int64_t kBlockN = 256;        // columns of a task
constexpr int64_t kBlockM = 256;        // rows that share one packed block of A
constexpr int64_t kStripFloats = 8192;  // of B when one tile uses it: fits in L1
constexpr int64_t kRowGap = 16;
constexpr int64_t kLeastRows = 112;  // a task is not cut to fewer rows than that

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

struct Task {
  const GemmProduct* product;
  int64_t m0, m1, n0, n1;
};

/// A buffer of each thread, kept for its life: a task's packed operands.
class Scratch {
 public:
  float* of_size(int64_t floats) {
    if (floats > size_) {
      data_.reset(static_cast<float*>(std::aligned_alloc(64, round_up(floats * 4, 64))));
      if (!data_) throw std::bad_alloc();
      size_ = floats;
    }
    return data_.get();
  }

 private:
  struct Free {
    void operator()(float* p) const { std::free(p); }
  };
  std::unique_ptr<float, Free> data_;
  int64_t size_ = 0;
};

/// A is read where it lies, a few rows abreast, unless it is stored transposed or its rows are a
/// multiple of 2 KiB apart, so that all of them compete for the same few sets of the L1 cache.
bool a_needs_packing(const GemmProduct& p) { return p.form == GemmForm::kTN || p.lda % 512 == 0; }

/// How a task runs through the caches.
struct Blocking {
  int64_t rows;     // of a tile; the last one may be lower
  int64_t tiles;    // down the task
  int64_t run;      // tiles that share one packed block of A
  int64_t vectors;  // across a strip of panels
  int64_t n, k;     // of a packed block of B
  bool pack_a, pack_b;

  Blocking(const GemmKernels& kernels, const Task& task) {
    const GemmProduct& p = *task.product;
    const int64_t m = task.m1 - task.m0, across = task.n1 - task.n0;
    rows = ceil_div(m, ceil_div(m, kernels.max_rows));
    tiles = ceil_div(m, rows);
    run = std::max<int64_t>(1, kBlockM / rows);
    vectors = kernels.vectors(static_cast<int>(rows));
    // A single tile uses each element of B once: pack what fits in L1, or nothing at all.
    const int64_t strip = vectors * kernels.lanes;
    n = tiles > 1 ? across : std::min(across, strip);
    const int64_t most_k = tiles > 1 ? kBlockK : kStripFloats / strip;
    k = round_up(ceil_div(p.k, ceil_div(p.k, most_k)), 16);
    pack_a = tiles > 1 && a_needs_packing(p);
    pack_b = !p.b_packed && (tiles > 1 || p.form == GemmForm::kNT || across % kernels.lanes != 0);
  }
};

/// One packed block of B against one run of tiles.
struct Block {
  int64_t n0, n, k0, k, first_tile, last_tile;
};

/// Space for a tile of packed A: a panel [k, lanes] if A is stored transposed, else rows of k
/// floats, a cache line further apart than that.
int64_t tile_floats(const GemmKernels& kernels,
                    const GemmProduct& p,
                    const Blocking& by,
                    int64_t k) {
  return p.form == GemmForm::kTN ? k * kernels.lanes : by.rows * (k + kRowGap);
}

void pack_a(const GemmKernels& kernels,
            const Task& task,
            const Blocking& by,
            const Block& block,
            float* to) {
  const GemmProduct& p = *task.product;
  const int64_t begin = task.m0 + block.first_tile * by.rows;
  const int64_t end = std::min(task.m1, task.m0 + block.last_tile * by.rows);
  if (p.form == GemmForm::kTN) {
    kernels.pack_rows(p.a + block.k0 * p.lda + begin, p.lda, block.k, end - begin, by.rows, to);
    return;
  }
  for (int64_t row = begin; row < end; ++row) {
    const int64_t tile = (row - begin) / by.rows, within = (row - begin) % by.rows;
    std::memcpy(to + (tile * by.rows + within) * (block.k + kRowGap),
                p.a + row * p.lda + block.k0,
                block.k * sizeof(float));
  }
}

void multiply_block(const GemmKernels& kernels,
                    const Task& task,
                    const Blocking& by,
                    const Block& block,
                    const float* a_packed,
                    const float* b_packed) {
  const GemmProduct& p = *task.product;
  const int64_t lanes = kernels.lanes, panels = ceil_div(block.n, lanes);
  const int64_t tile_size = tile_floats(kernels, p, by, block.k);
  const bool transposed = p.form == GemmForm::kTN;
  GemmTile tile;
  tile.k = block.k;
  tile.a_row = transposed ? 1 : by.pack_a ? block.k + kRowGap : p.lda;
  tile.a_k = !transposed ? 1 : by.pack_a ? lanes : p.lda;
  // Packed beforehand, B is in panels of the whole k.
  tile.b_panel = p.b_packed ? lanes * p.k : by.pack_b ? lanes * block.k : lanes;
  tile.b_k = by.pack_b || p.b_packed ? lanes : p.ldb;
  tile.ldc = p.ldc;
  tile.accumulate = p.accumulate || block.k0 > 0;
  for (int64_t panel = 0; panel < panels; panel += by.vectors) {
    const int64_t vectors = std::min(by.vectors, panels - panel), n0 = block.n0 + panel * lanes;
    tile.b = p.b_packed  ? p.b_packed + n0 * p.k + block.k0 * lanes
             : by.pack_b ? b_packed + panel * lanes * block.k
                         : p.b + block.k0 * p.ldb + n0;
    tile.n = std::min(block.n - panel * lanes, vectors * lanes);
    for (int64_t i = block.first_tile; i < block.last_tile; ++i) {
      const int64_t row = task.m0 + i * by.rows, rows = std::min(by.rows, task.m1 - row);
      tile.a = by.pack_a    ? a_packed + (i - block.first_tile) * tile_size
               : transposed ? p.a + block.k0 * p.lda + row
                            : p.a + row * p.lda + block.k0;
      tile.c = p.c + row * p.ldc + n0;
      kernels.tile(static_cast<int>(rows), static_cast<int>(vectors), tile);
    }
  }
}

void run_task(const GemmKernels& kernels,
              const Task& task,
              Scratch& a_scratch,
              Scratch& b_scratch) {
  const GemmProduct& p = *task.product;
  if (p.m == 1 && p.form == GemmForm::kNT && !p.b_packed && p.k % 8 == 0 &&
      (task.n1 - task.n0) % 32 == 0 && kernels.row_by_columns) {
    const float* b = p.b + task.n0 * p.ldb;
    kernels.row_by_columns(p.a, b, p.ldb, p.k, task.n1 - task.n0, p.c + task.n0, p.accumulate);
    return;
  }
  const Blocking by(kernels, task);
  float* const b = by.pack_b ? b_scratch.of_size(round_up(by.n, kernels.lanes) * by.k) : nullptr;
  float* const a =
      by.pack_a ? a_scratch.of_size(by.run * tile_floats(kernels, p, by, by.k)) : nullptr;
  for (int64_t n0 = task.n0; n0 < task.n1; n0 += by.n) {
    for (int64_t k0 = 0; k0 < p.k; k0 += by.k) {
      Block block{n0, std::min(by.n, task.n1 - n0), k0, std::min(by.k, p.k - k0), 0, 0};
      if (by.pack_b && p.form == GemmForm::kNT)
        kernels.pack_columns(p.b + n0 * p.ldb + k0, p.ldb, block.k, block.n, b);
      else if (by.pack_b)
        kernels.pack_rows(p.b + k0 * p.ldb + n0, p.ldb, block.k, block.n, kernels.lanes, b);
      for (int64_t first = 0; first < by.tiles; first += by.run) {
        block.first_tile = first, block.last_tile = std::min(first + by.run, by.tiles);
        if (by.pack_a) pack_a(kernels, task, by, block, a);
        multiply_block(kernels, task, by, block, a, b);
      }
    }
  }
}

/// Cuts one product into about `pieces` tasks, by rows first: more columns share the reading of A,
/// and more rows the packing of B.
void cut(const GemmProduct& p, int64_t pieces, std::vector<Task>& tasks) {
  const int64_t grain = 32;
  int64_t across = ceil_div(p.n, kBlockN);
  const int64_t most_down = std::max<int64_t>(1, p.m / kLeastRows);
  const int64_t down = std::clamp<int64_t>(ceil_div(pieces, across), 1, most_down);
  across =
      std::clamp<int64_t>(ceil_div(pieces, down), across, std::max(across, ceil_div(p.n, grain)));
  const int64_t grains = ceil_div(p.n, grain);
  for (int64_t i = 0; i < across; ++i) {
    const int64_t n0 = grains * i / across * grain,
                  n1 = std::min(p.n, grains * (i + 1) / across * grain);
    for (int64_t j = 0; j < down && n0 < n1; ++j)
      tasks.push_back({&p, p.m * j / down, p.m * (j + 1) / down, n0, n1});
  }
}

double cycles(const GemmProduct& p) {
  return static_cast<double>(p.n) * p.k * (p.m / 32.0 + 1.0 / 6.0);
}

const GemmKernels& kernels_of(GemmPath path) {
#if defined(__x86_64__)
  if (path == GemmPath::kAvx512) return gemm_avx512;
  if (path == GemmPath::kAvx2) return gemm_avx2;
#endif
  return gemm_portable;
}

}  // namespace

bool gemm_path_available(GemmPath path) {
#if defined(__x86_64__)
  if (path == GemmPath::kAvx512) return __builtin_cpu_supports("avx512f");
  if (path == GemmPath::kAvx2)
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
  return path == GemmPath::kPortable;
}

GemmPath gemm_best_path() {
  static const GemmPath best = gemm_path_available(GemmPath::kAvx512) ? GemmPath::kAvx512
                               : gemm_path_available(GemmPath::kAvx2) ? GemmPath::kAvx2
                                                                      : GemmPath::kPortable;
  return best;
}

bool gemm_preferred() {
#if defined(__x86_64__)
  return gemm_best_path() != GemmPath::kPortable && !__builtin_cpu_is("intel");
#else
  return false;
#endif
}

int64_t gemm_packed_size(int64_t n, int64_t k, GemmPath path) {
  return round_up(n, kernels_of(path).lanes) * k;
}

void gemm_pack(const float* b, int64_t ldb, int64_t n, int64_t k, float* packed, GemmPath path) {
  kernels_of(path).pack_columns(b, ldb, k, n, packed);
}

void gemm(const GemmProduct& product, GemmPath path) { gemm_many(&product, 1, path); }

void gemm_many(const GemmProduct* products, int64_t count, GemmPath path) {
  const GemmKernels& kernels = kernels_of(path);
  double total = 0;
  for (int64_t i = 0; i < count; ++i) total += cycles(products[i]);
  // A thread is worth waking for some microseconds of work.
  const int64_t most = omp_in_parallel() ? 1 : omp_get_max_threads();
  const int64_t threads = std::clamp<int64_t>(static_cast<int64_t>(total / 8000), 1, most);

  std::vector<Task> tasks;
  for (int64_t i = 0; i < count; ++i) {
    const GemmProduct& p = products[i];
    if (p.m <= 0 || p.n <= 0) continue;
    if (p.k <= 0) {
      for (int64_t row = 0; !p.accumulate && row < p.m; ++row)
        std::fill_n(p.c + row * p.ldc, p.n, 0.0f);
      continue;
    }
    const double share = threads == 1 ? 1 : 2 * threads * cycles(p) / total;
    cut(p, std::max<int64_t>(1, std::llround(share)), tasks);
  }

  std::atomic<size_t> next{0};
  const auto work = [&] {
    static thread_local Scratch a_scratch, b_scratch;
    for (size_t i = next++; i < tasks.size(); i = next++)
      run_task(kernels, tasks[i], a_scratch, b_scratch);
  };
  const int team = static_cast<int>(std::min<int64_t>(threads, static_cast<int64_t>(tasks.size())));
  if (team <= 1) {
    work();
    return;
  }
#pragma omp parallel num_threads(team)
  work();
}

}  // namespace cohort::kernels
