#include "kernels/cpu/attention_decode.h"

#include <algorithm>

#include "kernels/cpu/attention_softmax.h"
#include "kernels/cpu/parallel.h"

namespace cohort::kernels {
namespace {

constexpr int kKeys = 8;  // scored at a time: as many independent chains

/// The queries of up to kLanes heads, rotated and transposed: q_t[channel][lane].
template <class T>
void pack_heads(
    const DecodeProblem<T>& p, const T* q, int64_t query, int64_t heads, Sum<T>* one, Sum<T>* q_t) {
  using A = Sum<T>;
  constexpr int L = kLanes<A>;
  const int64_t half = p.rope_dim / 2, position = p.position[query];
  std::fill_n(q_t, p.k_dim * L, A(0));
  for (int64_t h = 0; h < heads; ++h) {
    for (int64_t d = 0; d < p.k_dim; ++d) one[d] = to_sum(q[h * p.k_dim + d]);
    if (half)
      rotate_row<A>(one + p.k_dim - p.rope_dim,
                    p.cos + position * half,
                    p.sin + position * half,
                    p.rope_dim,
                    p.interleave,
                    1);
    for (int64_t d = 0; d < p.k_dim; ++d) q_t[d * L + h] = one[d];
  }
}

/// scores[h][0, count) of `count` <= kKeys keys, rows apart.
template <int kCount, class A>
COHORT_INLINE void score_keys(
    const A* q_t, const A* keys, int64_t row, int64_t dim, int64_t heads, A* scores, int64_t ld) {
  constexpr int L = kLanes<A>;
  Vector<A> sums[kCount] = {};
  for (int64_t d = 0; d < dim; ++d) {
    const Vector<A> x = load(q_t + d * L);
#pragma GCC unroll 8
    for (int j = 0; j < kCount; ++j) sums[j] += x * splat<A>(keys[j * row + d]);
  }
  for (int j = 0; j < kCount; ++j) {
    A lanes[L];
    store(lanes, sums[j]);
    for (int64_t h = 0; h < heads; ++h) scores[h * ld + j] = lanes[h];
  }
}

template <class T>
void decode_heads(
    const DecodeProblem<T>& p, int64_t query, int64_t kv_head, int64_t heads, const T* q, T* out) {
  using A = Sum<T>;
  constexpr int L = kLanes<A>;
  const int64_t visible = p.position[query] + 1, ld = round_up(visible, kPanel<A>);
  const int64_t v_ld = round_up(p.v_dim, kPanel<A>), tiles = round_up(heads, kTileRows);
  auto& scratch = scratch_of_thread<A>();
  scratch.reserve(p.k_dim * (L + 1) + tiles * (ld + v_ld) + 8 * L);
  A* one = scratch.take(p.k_dim);
  A* q_t = scratch.take(p.k_dim * L);
  A* scores = scratch.take(tiles * ld);
  A* o = scratch.take(tiles * v_ld);
  pack_heads<T>(p, q, query, heads, one, q_t);

  const CacheSpan* begin = p.spans + p.first_span[query];
  const CacheSpan* end = p.spans + p.first_span[query + 1];
  A* to = scores;
  for (const CacheSpan* span = begin; span != end; ++span) {
    const A* keys = p.cache + span->first * p.row + kv_head * p.k_dim;
    int64_t j = 0;
    for (; j + kKeys <= span->count; j += kKeys)
      score_keys<kKeys, A>(q_t, keys + j * p.row, p.row, p.k_dim, heads, to + j, ld);
    for (; j < span->count; ++j)
      score_keys<1, A>(q_t, keys + j * p.row, p.row, p.k_dim, heads, to + j, ld);
    to += span->count;
  }

  A sums[L];
  for (int64_t h = 0; h < heads; ++h)
    sums[h] = softmax_row<A>(scores + h * ld, visible, ld, A(p.scale)).first;
  for (int64_t h = heads; h < tiles; ++h) std::fill_n(scores + h * ld, ld, A(0));

  for (int64_t h = 0; h < tiles; h += kTileRows)
    for (int64_t c = 0; c < v_ld; c += kPanel<A>) {
      int64_t j = 0;
      for (const CacheSpan* span = begin; span != end; j += span->count, ++span)
        tile_product<LeftOperand::kRows, A>(
            span->count,
            scores + h * ld + j,
            ld,
            p.cache + span->first * p.row + p.v_offset + kv_head * p.v_dim + c,
            p.row,
            o + h * v_ld + c,
            v_ld,
            j > 0);
    }
  for (int64_t h = 0; h < heads; ++h) {
    const A inverse = 1 / sums[h];
    each_vector<A>(p.v_dim, [&](int64_t c, auto m) COHORT_LAMBDA {
      store(out + h * p.v_dim + c, load(o + h * v_ld + c, m) * inverse, m);
    });
  }
}

}  // namespace

template <class T>
void attention_decode(const DecodeProblem<T>& p, const T* q, T* out) {
  constexpr int64_t L = kLanes<Sum<T>>;
  const int64_t group = p.heads / p.kv_heads, chunks = (group + L - 1) / L;
  const int64_t tasks = p.queries * p.kv_heads * chunks;
  const int threads =
      omp_in_parallel() ? 1 : static_cast<int>(std::min<int64_t>(tasks, omp_get_max_threads()));
#pragma omp parallel for schedule(dynamic, 4) num_threads(threads) if (threads > 1)
  for (int64_t i = 0; i < tasks; ++i) {
    const int64_t chunk = i % chunks, kv_head = i / chunks % p.kv_heads;
    const int64_t query = i / chunks / p.kv_heads;
    const int64_t head = kv_head * group + chunk * L, heads = std::min(L, group - chunk * L);
    const int64_t first = query * p.heads + head;
    decode_heads<T>(p, query, kv_head, heads, q + first * p.k_dim, out + first * p.v_dim);
  }
}

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
                 Sum<T>* cache) {
  const int64_t half = rope_dim / 2;
  parallel_for(tokens, 64, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      for (int64_t h = 0; h < heads; ++h) {
        const T* from = x + i * x_row + h * dim;
        Sum<T>* to = cache + slot[i] * row + at + h * dim;
        for (int64_t d = 0; d < dim; ++d) to[d] = to_sum(from[d]);
        if (half)
          rotate_row<Sum<T>>(to + dim - rope_dim,
                             cos + position[i] * half,
                             sin + position[i] * half,
                             rope_dim,
                             interleave,
                             1);
      }
  });
}

#define COHORT_INSTANTIATE(T)                                               \
  template void attention_decode<T>(const DecodeProblem<T>&, const T*, T*); \
  template void write_cache<T>(const T*,                                    \
                               int64_t,                                     \
                               int64_t,                                     \
                               int64_t,                                     \
                               int64_t,                                     \
                               int64_t,                                     \
                               bool,                                        \
                               const Sum<T>*,                               \
                               const Sum<T>*,                               \
                               const int64_t*,                              \
                               const int64_t*,                              \
                               int64_t,                                     \
                               int64_t,                                     \
                               Sum<T>*);
COHORT_INSTANTIATE(float)
COHORT_INSTANTIATE(double)
COHORT_INSTANTIATE(bf16)
#undef COHORT_INSTANTIATE

}  // namespace cohort::kernels
