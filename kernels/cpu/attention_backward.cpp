#include <memory>
#include <vector>

#include "kernels/cpu/attention.h"
#include "kernels/cpu/attention_pack.h"
#include "kernels/cpu/parallel.h"

namespace cohort::kernels {
namespace {

/// Query rows whose scores are held at once.
constexpr int64_t kBlock = 4 * kTileRows;

/// What backward holds of one run and key-value head.
template <class A>
struct BackwardBuffers {
  A *k, *k_panels, *v_panels, *d_k, *d_v;  // of the keys
  A *p, *d_s, *q, *d_o, *d_q, *v;          // of a block of queries; v is scratch for packing
  int64_t qk_ld, v_ld, score_ld;

  BackwardBuffers(int64_t padded, int64_t qk_dim, int64_t v_dim) {
    qk_ld = round_up(qk_dim, kPanel<A>);
    v_ld = round_up(v_dim, kPanel<A>);
    score_ld = padded +
               kLanes<A>;  // not a power of two: columns of a block fall into different cache sets
    auto& scratch = scratch_of_thread<A>();
    scratch.reserve(padded * (2 * qk_ld + qk_dim + v_dim + 2 * v_ld) +
                    kBlock * (2 * score_ld + 2 * qk_ld + v_ld) + 16 * kLanes<A>);
    k = scratch.take(padded * qk_ld);
    k_panels = scratch.take(padded * qk_dim);
    v = scratch.take(padded * v_ld);
    v_panels = scratch.take(padded * v_dim);
    d_k = scratch.take(padded * qk_ld);
    d_v = scratch.take(padded * v_ld);
    p = scratch.take(kBlock * score_ld);
    d_s = scratch.take(kBlock * score_ld);
    q = scratch.take(kBlock * qk_ld);
    d_o = scratch.take(kBlock * v_ld);
    d_q = scratch.take(kBlock * qk_ld);
    std::fill_n(d_k, padded * qk_ld, A(0));
    std::fill_n(d_v, padded * v_ld, A(0));
  }
};

/// P and d S = P (d P - delta) scale of a block of queries [begin, begin + rows) over keys [0,
/// keys): d P = d_out v^T, delta = sum of d_out out. Zero where a query does not look.
template <class T>
void block_scores(const AttentionProblem<T>& p,
                  const AttentionRun& run,
                  int64_t head,
                  int64_t begin,
                  int64_t rows,
                  int64_t keys,
                  const T* out,
                  const Sum<T>* log_sum,
                  const BackwardBuffers<Sum<T>>& b) {
  using A = Sum<T>;
  for (int64_t tile = 0; tile < rows; tile += kTileRows) {
    const int64_t tile_keys = begin + tile + kTileRows;
    score_tile<A>(b.q + tile * b.qk_ld,
                  b.qk_ld,
                  b.k_panels,
                  p.qk_dim,
                  tile_keys,
                  b.p + tile * b.score_ld,
                  b.score_ld);
    score_tile<A>(b.d_o + tile * b.v_ld,
                  b.v_ld,
                  b.v_panels,
                  p.v_dim,
                  tile_keys,
                  b.d_s + tile * b.score_ld,
                  b.score_ld);
    for (int64_t r = tile; r < tile + kTileRows; ++r) {
      A* scores = b.p + r * b.score_ld;
      A* d_scores = b.d_s + r * b.score_ld;
      const int64_t visible = r < rows ? begin + r + 1 : 0;
      if (visible) {
        const int64_t token = run.first + begin + r;
        const T* o = out + (token * p.heads + head) * p.v_dim;
        Vector<A> products = {};
        each_vector<A>(p.v_dim, [&](int64_t j, auto n) COHORT_LAMBDA {
          products += load(o + j, n) * load(b.d_o + r * b.v_ld + j, n);
        });
        const A delta = sum_of<A>(products), scale = A(p.scale),
                log = log_sum[token * p.heads + head];
        for (int64_t j = 0; j < visible; j += kLanes<A>) {
          const auto e = exp_of(load(scores + j) * scale - log);
          store(scores + j, e);
          store(d_scores + j, e * (load(d_scores + j) - delta) * scale);
        }
      }
      std::fill(scores + visible, scores + keys, A(0));
      std::fill(d_scores + visible, d_scores + keys, A(0));
    }
  }
}

/// d_keys[j] += sum over the block's queries of weight[query][j] rows[query], for keys [0, keys).
template <class A>
void add_to_keys(const A* weight,
                 int64_t weight_ld,
                 const A* rows,
                 int64_t ld,
                 int64_t begin,
                 int64_t num_rows,
                 int64_t keys,
                 A* d_keys) {
  for (int64_t j = 0; j < keys; j += kTileRows) {
    const int64_t first = std::max<int64_t>(j - begin, 0);  // earlier queries do not see these keys
    for (int64_t d = 0; d < ld; d += kPanel<A>)
      tile_product<LeftOperand::kColumns, A>(num_rows - first,
                                             weight + first * weight_ld + j,
                                             weight_ld,
                                             rows + first * ld + d,
                                             ld,
                                             d_keys + j * ld + d,
                                             ld,
                                             true);
  }
}

/// Rounds rows [rows, ld] to their place, `dim` channels from `from` on.
template <class T>
void narrow(const Sum<T>* rows,
            int64_t ld,
            int64_t num_rows,
            int64_t dim,
            const HeadRows<T>& dst,
            int64_t first,
            int64_t head) {
  using A = Sum<T>;
  for (int64_t i = 0; i < num_rows; ++i) {
    T* to = dst.row(first + i, head);
    each_vector<A>(dim, [&](int64_t j, auto n) COHORT_LAMBDA {
      store(to + j, load(rows + i * ld + j, n), n);
    });
  }
}

/// One block of queries of one head: writes d q, adds to d k and d v.
template <class T>
void backward_block(const AttentionProblem<T>& p,
                    const AttentionOperands<const T>& in,
                    const AttentionRun& run,
                    int64_t head,
                    int64_t begin,
                    const T* out,
                    const Sum<T>* log_sum,
                    const HeadRows<const T>& d_out,
                    const HeadRows<T>& d_q,
                    const BackwardBuffers<Sum<T>>& b) {
  using A = Sum<T>;
  const int64_t rows = std::min(kBlock, run.count - begin), tiled = round_up(rows, kTileRows),
                keys = begin + tiled;
  pack_queries<T>(p, in, run, head, begin, rows, b.q, b.qk_ld);
  widen<T>(d_out, run.first + begin, head, rows, tiled, p.v_dim, b.d_o, b.v_ld, b.v_ld);
  block_scores<T>(p, run, head, begin, rows, keys, out, log_sum, b);
  for (int64_t r = 0; r < tiled; r += kTileRows)
    for (int64_t d = 0; d < b.qk_ld; d += kPanel<A>)
      tile_product<LeftOperand::kRows, A>(begin + r + kTileRows,
                                          b.d_s + r * b.score_ld,
                                          b.score_ld,
                                          b.k + d,
                                          b.qk_ld,
                                          b.d_q + r * b.qk_ld + d,
                                          b.qk_ld,
                                          false);
  if (p.rope_dim)
    rotate_rows<A>(p.cos,
                   p.sin,
                   run.position + begin,
                   rows,
                   p.rope_dim,
                   p.interleave,
                   -1,
                   b.d_q + p.qk_dim - p.rope_dim,
                   b.qk_ld);
  narrow<T>(b.d_q, b.qk_ld, rows, p.qk_dim, d_q, run.first + begin, head);
  add_to_keys<A>(b.d_s, b.score_ld, b.q, b.qk_ld, begin, tiled, keys, b.d_k);
  add_to_keys<A>(b.p, b.score_ld, b.d_o, b.v_ld, begin, tiled, keys, b.d_v);
}

/// The gradient of the shared key part: `parts` [tokens, kv_heads, shared_dim] summed over heads in
/// order, rotated back.
template <class T>
void reduce_shared_key(const AttentionProblem<T>& p,
                       const Sum<T>* parts,
                       const HeadRows<T>& d_shared) {
  using A = Sum<T>;
  parallel_for(p.num_runs, 1, [&](int64_t begin, int64_t end) {
    std::vector<A> sum(p.shared_dim);
    for (const AttentionRun* run = p.runs + begin; run < p.runs + end; ++run)
      for (int64_t t = 0; t < run->count; ++t) {
        const A* part = parts + (run->first + t) * p.kv_heads * p.shared_dim;
        std::fill(sum.begin(), sum.end(), A(0));
        for (int64_t h = 0; h < p.kv_heads; ++h)
          for (int64_t d = 0; d < p.shared_dim; ++d) sum[d] += part[h * p.shared_dim + d];
        if (p.rope_dim)
          rotate_rows<A>(
              p.cos, p.sin, run->position + t, 1, p.shared_dim, p.interleave, -1, sum.data(), 0);
        for (int64_t d = 0; d < p.shared_dim; ++d)
          from_sum(sum[d], d_shared.row(run->first + t, 0)[d]);
      }
  });
}

}  // namespace

template <class T>
void attention_backward(const AttentionProblem<T>& p,
                        const AttentionOperands<const T>& in,
                        const T* out,
                        const Sum<T>* log_sum,
                        const HeadRows<const T>& d_out,
                        const AttentionOperands<T>& gradient) {
  using A = Sum<T>;
  const int64_t group = p.heads / p.kv_heads, own = p.qk_dim - p.shared_dim;
  std::unique_ptr<A[]> shared_parts;
  if (p.shared_dim) shared_parts.reset(new A[p.tokens * p.kv_heads * p.shared_dim]);
  for_each_task(p, [&](const AttentionRun& run, int64_t kv_head) {
    const int64_t n = run.count, padded = round_up(n, kPanel<A>);
    const BackwardBuffers<A> b(padded, p.qk_dim, p.v_dim);
    pack_keys<T>(p, in, run, kv_head, padded, b.k, b.qk_ld);
    to_panels<A>(b.k, b.qk_ld, padded, p.qk_dim, b.k_panels);
    widen<T>(in.v, run.first, kv_head, n, padded, p.v_dim, b.v, b.v_ld, b.v_ld);
    to_panels<A>(b.v, b.v_ld, padded, p.v_dim, b.v_panels);
    for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head)
      for (int64_t begin = 0; begin < n; begin += kBlock)
        backward_block<T>(p, in, run, head, begin, out, log_sum, d_out, gradient.q, b);

    if (p.rope_dim && !p.shared_dim)
      rotate_rows<A>(p.cos,
                     p.sin,
                     run.position,
                     n,
                     p.rope_dim,
                     p.interleave,
                     -1,
                     b.d_k + p.qk_dim - p.rope_dim,
                     b.qk_ld);
    narrow<T>(b.d_k, b.qk_ld, n, own, gradient.k, run.first, kv_head);
    narrow<T>(b.d_v, b.v_ld, n, p.v_dim, gradient.v, run.first, kv_head);
    if (p.shared_dim)
      for (int64_t i = 0; i < n; ++i)
        std::copy_n(b.d_k + i * b.qk_ld + own,
                    p.shared_dim,
                    shared_parts.get() + ((run.first + i) * p.kv_heads + kv_head) * p.shared_dim);
  });
  if (p.shared_dim) reduce_shared_key<T>(p, shared_parts.get(), gradient.k_shared);
}

#define COHORT_INSTANTIATE(T)                                            \
  template void attention_backward<T>(const AttentionProblem<T>&,        \
                                      const AttentionOperands<const T>&, \
                                      const T*,                          \
                                      const Sum<T>*,                     \
                                      const HeadRows<const T>&,          \
                                      const AttentionOperands<T>&);
COHORT_INSTANTIATE(float)
COHORT_INSTANTIATE(double)
COHORT_INSTANTIATE(bf16)
#undef COHORT_INSTANTIATE

}  // namespace cohort::kernels
