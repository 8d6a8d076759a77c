// Packing of attention's operands, and what its forward and backward share besides.
#pragma once
#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <new>

#include "kernels/cpu/attention.h"
#include "kernels/cpu/attention_tiles.h"
#include "kernels/cpu/rope.h"

namespace cohort::kernels {

inline int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

/// Memory of one thread for its tasks, kept from call to call because fresh pages cost more than
/// the work on them.
template <class A>
class Scratch {
 public:
  void reserve(int64_t n) {
    if (n > size_) {
      memory_.reset(static_cast<A*>(::operator new[](n * sizeof(A), std::align_val_t{64})));
      size_ = n;
    }
    used_ = 0;
  }
  A* take(int64_t n) {
    A* p = memory_.get() + used_;
    used_ += round_up(n, kLanes<A>);
    return p;
  }

 private:
  struct Free {
    void operator()(A* p) const { ::operator delete[](p, std::align_val_t{64}); }
  };
  std::unique_ptr<A[], Free> memory_;
  int64_t size_ = 0, used_ = 0;
};

template <class A>
Scratch<A>& scratch_of_thread() {
  thread_local Scratch<A> scratch;
  return scratch;
}

/// Runs body(run index, key-value head) for all of them. Long tasks are handed out as threads come
/// free.
template <class T, class Body>
void for_each_task(const AttentionProblem<T>& p, const Body& body) {
  const int64_t tasks = p.num_runs * p.kv_heads;
  const int threads =
      omp_in_parallel() ? 1 : static_cast<int>(std::min<int64_t>(tasks, omp_get_max_threads()));
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1)
  for (int64_t i = 0; i < tasks; ++i) body(p.runs[i / p.kv_heads], i % p.kv_heads);
}

/// dst [rows, ld] from `dim` channels of src, in the precision of sums; zeros beyond dim and up to
/// padded_rows.
template <class T>
void widen(const HeadRows<const T>& src,
           int64_t first,
           int64_t head,
           int64_t rows,
           int64_t padded_rows,
           int64_t dim,
           Sum<T>* dst,
           int64_t ld,
           int64_t padded_dim) {
  using A = Sum<T>;
  for (int64_t i = 0; i < rows; ++i) {
    const T* from = src.row(first + i, head);
    each_vector<A>(dim, [&](int64_t j, auto n) COHORT_LAMBDA {
      store(dst + i * ld + j, load(from + j, n), n);
    });
    std::fill(dst + i * ld + dim, dst + i * ld + padded_dim, A(0));
  }
  for (int64_t i = rows; i < padded_rows; ++i) std::fill_n(dst + i * ld, padded_dim, A(0));
}

template <class A>
void rotate_rows(const A* cos,
                 const A* sin,
                 int64_t position,
                 int64_t rows,
                 int64_t dim,
                 bool interleave,
                 A sign,
                 A* x,
                 int64_t ld) {
  const int64_t half = dim / 2;
  for (int64_t i = 0; i < rows; ++i)
    rotate_row<A>(x + i * ld,
                  cos + (position + i) * half,
                  sin + (position + i) * half,
                  dim,
                  interleave,
                  sign);
}

/// Query rows of one block: widened, rotated and padded to whole tiles.
template <class T>
void pack_queries(const AttentionProblem<T>& p,
                  const AttentionOperands<const T>& in,
                  const AttentionRun& run,
                  int64_t head,
                  int64_t begin,
                  int64_t rows,
                  Sum<T>* q,
                  int64_t ld) {
  widen<T>(in.q, run.first + begin, head, rows, round_up(rows, kTileRows), p.qk_dim, q, ld, ld);
  if (p.rope_dim)
    rotate_rows<Sum<T>>(p.cos,
                        p.sin,
                        run.position + begin,
                        rows,
                        p.rope_dim,
                        p.interleave,
                        1,
                        q + p.qk_dim - p.rope_dim,
                        ld);
}

/// Keys of a run and head, likewise, [padded_rows, ld].
template <class T>
void pack_keys(const AttentionProblem<T>& p,
               const AttentionOperands<const T>& in,
               const AttentionRun& run,
               int64_t head,
               int64_t padded_rows,
               Sum<T>* k,
               int64_t ld) {
  const int64_t own = p.qk_dim - p.shared_dim;
  widen<T>(in.k, run.first, head, run.count, padded_rows, own, k, ld, ld);
  if (p.shared_dim)
    widen<T>(
        in.k_shared, run.first, 0, run.count, run.count, p.shared_dim, k + own, ld, p.shared_dim);
  if (p.rope_dim)
    rotate_rows<Sum<T>>(p.cos,
                        p.sin,
                        run.position,
                        run.count,
                        p.rope_dim,
                        p.interleave,
                        1,
                        k + p.qk_dim - p.rope_dim,
                        ld);
}

/// scores[kTileRows, ld] of tile rows q against keys [0, keys), keys a multiple of kTileRows.
template <class A>
void score_tile(
    const A* q, int64_t q_ld, const A* panels, int64_t dim, int64_t keys, A* scores, int64_t ld) {
  for (int64_t j = 0; j < keys; j += kPanel<A>)
    tile_product<LeftOperand::kRows, A>(
        dim, q, q_ld, panels + j * dim, kPanel<A>, scores + j, ld, false);
}

}  // namespace cohort::kernels
