// Attention of single tokens over a cache, for decoding and for the prompts before it.
//
// One row of the cache is one token: its keys and values, in the precision of sums. A query reads
// its sequence's rows in order; where they lie is told by spans, so that sequences share the rows
// of a common beginning and grow without being copied. Bytes moved: the visible rows, once for each
// group of query heads that share a key head (once for all heads in MLA's absorbed form). The heads
// of a group lie across vector lanes for the scores, channels do for the weighted sum.
//
// Scores, softmax and sums are taken in the order of attention_forward: the same query over the
// same keys and values has the same bits from either.
#pragma once
#include <cstdint>

#include "kernels/cpu/simd.h"

namespace cohort::kernels {

/// Rows [first, first + count) of the cache.
struct CacheSpan {
  int64_t first, count;
};

template <class T>
struct DecodeProblem {
  int64_t queries = 0;
  int64_t heads = 1, kv_heads = 1;  ///< kv_heads divides heads.
  int64_t k_dim = 0, v_dim = 0;
  int64_t row = 0;  ///< Elements from one row of the cache to the next.
  /// Key head h of a row: k_dim channels at h k_dim; value head h: v_dim at v_offset + h v_dim.
  int64_t v_offset = 0;
  int64_t rope_dim = 0;  ///< The last so many channels of q rotate; keys in the cache have rotated.
  bool interleave = false;
  double scale = 1;
  const Sum<T>*cos = nullptr, *sin = nullptr;  ///< [positions, rope_dim / 2]
  const int64_t* position = nullptr;           ///< [queries]
  const CacheSpan* spans =
      nullptr;  ///< Query i sees spans [first_span[i], first_span[i + 1]), whose
  const int64_t* first_span = nullptr;  ///< counts add up to its position + 1. [queries + 1]
  /// Rows of whole panels are read: up to 2 kLanes elements beyond the last row must be readable.
  const Sum<T>* cache = nullptr;
};

/// q [queries, heads, k_dim], not yet rotated -> out [queries, heads, v_dim]; both contiguous.
template <class T>
void attention_decode(const DecodeProblem<T>& problem, const T* q, T* out);

/// Writes rows slot[i] of the cache: channels [at, at + heads dim) from x [tokens, heads, dim]
/// (rows x_row apart), each head's last rope_dim channels rotated by position[i].
template <class T>
void write_cache(const T* x,
                 int64_t x_row,
                 int64_t tokens,
                 int64_t heads,
                 int64_t dim,
                 int64_t rope_dim,
                 bool interleave,
                 const Sum<T>* cos,
                 const Sum<T>* sin,
                 const int64_t* position,
                 const int64_t* slot,
                 int64_t row,
                 int64_t at,
                 Sum<T>* cache);

}  // namespace cohort::kernels
