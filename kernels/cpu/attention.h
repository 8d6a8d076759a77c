// Causal attention within runs of tokens, forward and backward, with rotation of the positions and
// the shared key part of MLA done on the way.
//
// A task is one run and one key-value head. It packs the keys and values of the run, in the
// precision of the sums, and takes the queries of each head in blocks of a few rows. A block's
// scores over all its keys, [rows, n], fit the first- or second-level cache: softmax sees a whole
// row at once, there is no running maximum, and [n, n] is never held. Blocks above the diagonal are
// skipped. Backward keeps one log-sum-exp a query and recomputes the scores.
//
// Work for a run of n tokens and one head, D = qk_dim, E = v_dim: 2 n^2 (D + E) / 2 FLOPs forward,
// 2 n^2 (3 D + 2 E) / 2 backward, plus what the diagonal blocks waste. Memory: q, k, v, out once
// each way, and their gradients.
//
// Every sum is one chain over ascending key, query or channel, whichever block it is computed in,
// so the result for a token has the same bits on any number of threads and in any batch.
#pragma once
#include <cstdint>

#include "kernels/cpu/simd.h"

namespace cohort::kernels {

/// Tokens [first, first + count) of the flattened batch, the first of which stands at `position` in
/// its row.
struct AttentionRun {
  int64_t first, position, count;
};

/// Elements between neighbouring tokens and neighbouring heads; channels are contiguous.
template <class T>
struct HeadRows {
  T* data = nullptr;
  int64_t token = 0, head = 0;
  T* row(int64_t t, int64_t h) const { return data + t * token + h * head; }
};

template <class T>
struct AttentionProblem {
  const AttentionRun* runs = nullptr;
  int64_t num_runs = 0, tokens = 0;
  int64_t heads = 1,
          kv_heads =
              1;  ///< kv_heads divides heads; query head h reads key head h / (heads / kv_heads).
  int64_t qk_dim = 0, v_dim = 0;
  int64_t rope_dim = 0;     ///< The last so many channels of q and k rotate; 0: none.
  bool interleave = false;  ///< See rotate_row.
  int64_t shared_dim = 0;   ///< The last so many channels of all key heads are k_shared's; 0: none.
  double scale = 1;
  const Sum<T>*cos = nullptr, *sin = nullptr;  ///< [positions, rope_dim / 2].
};

template <class T>
struct AttentionOperands {
  HeadRows<T> q;         ///< qk_dim channels.
  HeadRows<T> k;         ///< qk_dim - shared_dim channels.
  HeadRows<T> k_shared;  ///< shared_dim channels, one head.
  HeadRows<T> v;         ///< v_dim channels.
};

/// out [tokens, heads, v_dim] contiguous; log_sum [tokens, heads] may be null.
template <class T>
void attention_forward(const AttentionProblem<T>& problem,
                       const AttentionOperands<const T>& in,
                       T* out,
                       Sum<T>* log_sum);

/// d_out has the given strides; the gradients are written, not added to.
template <class T>
void attention_backward(const AttentionProblem<T>& problem,
                        const AttentionOperands<const T>& in,
                        const T* out,
                        const Sum<T>* log_sum,
                        const HeadRows<const T>& d_out,
                        const AttentionOperands<T>& gradient);

}  // namespace cohort::kernels
