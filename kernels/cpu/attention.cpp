#include "kernels/cpu/attention.h"

#include <cmath>

#include "kernels/cpu/attention_pack.h"
#include "kernels/cpu/attention_softmax.h"

namespace cohort::kernels {
template <class T>
void attention_forward(const AttentionProblem<T>& p,
                       const AttentionOperands<const T>& in,
                       T* out,
                       Sum<T>* log_sum) {
  using A = Sum<T>;
  const int64_t group = p.heads / p.kv_heads;
  const int64_t qk_ld = round_up(p.qk_dim, kPanel<A>), v_ld = round_up(p.v_dim, kPanel<A>);
  for_each_task(p, [&](const AttentionRun& run, int64_t kv_head) {
    const int64_t n = run.count, padded = round_up(n, kPanel<A>);
    auto& scratch = scratch_of_thread<A>();
    scratch.reserve(padded * (qk_ld + p.qk_dim + v_ld + kTileRows) + kTileRows * (qk_ld + v_ld) +
                    8 * kLanes<A>);
    A* k = scratch.take(padded * qk_ld);
    A* k_panels = scratch.take(padded * p.qk_dim);
    A* v = scratch.take(padded * v_ld);
    A* scores = scratch.take(padded * kTileRows);
    A* q = scratch.take(kTileRows * qk_ld);
    A* o = scratch.take(kTileRows * v_ld);
    pack_keys<T>(p, in, run, kv_head, padded, k, qk_ld);
    to_panels<A>(k, qk_ld, padded, p.qk_dim, k_panels);
    widen<T>(in.v, run.first, kv_head, n, padded, p.v_dim, v, v_ld, v_ld);

    for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head)
      for (int64_t begin = 0; begin < n; begin += kTileRows) {
        const int64_t rows = std::min<int64_t>(kTileRows, n - begin), keys = begin + kTileRows;
        A sums[kTileRows];
        pack_queries<T>(p, in, run, head, begin, rows, q, qk_ld);
        score_tile<A>(q, qk_ld, k_panels, p.qk_dim, keys, scores, padded);
        for (int64_t r = 0; r < kTileRows; ++r) {
          const auto [sum, top] =
              softmax_row<A>(scores + r * padded, std::min(begin + r + 1, n), keys, A(p.scale));
          sums[r] = sum;
          if (log_sum && r < rows)
            log_sum[(run.first + begin + r) * p.heads + head] = top + std::log(sum);
        }
        for (int64_t j = 0; j < v_ld; j += kPanel<A>)
          tile_product<LeftOperand::kRows, A>(
              keys, scores, padded, v + j, v_ld, o + j, v_ld, false);
        for (int64_t r = 0; r < rows; ++r) {
          T* to = out + ((run.first + begin + r) * p.heads + head) * p.v_dim;
          const A inverse = 1 / sums[r];
          each_vector<A>(p.v_dim, [&](int64_t j, auto m) COHORT_LAMBDA {
            store(to + j, load(o + r * v_ld + j, m) * inverse, m);
          });
        }
      }
  });
}

#define COHORT_INSTANTIATE(T)         \
  template void attention_forward<T>( \
      const AttentionProblem<T>&, const AttentionOperands<const T>&, T*, Sum<T>*);
COHORT_INSTANTIATE(float)
COHORT_INSTANTIATE(double)
COHORT_INSTANTIATE(bf16)
#undef COHORT_INSTANTIATE

}  // namespace cohort::kernels
