#include "kernels/cpu/dispatch.h"

#include <cstring>
#include <vector>

#include "kernels/cpu/parallel.h"

namespace cohort::kernels {
namespace {

constexpr int64_t kGrain = 16;  // rows a thread at least

}  // namespace

void sort_pairs(const int64_t* expert,
                int64_t num_pairs,
                int64_t E,
                int64_t* count,
                int64_t* pair_at,
                int64_t* place_of) {
  std::memset(count, 0, sizeof(int64_t) * E);
  for (int64_t p = 0; p < num_pairs; ++p) ++count[expert[p]];
  std::vector<int64_t> next(E);
  int64_t start = 0;
  for (int64_t e = 0; e < E; ++e) {
    next[e] = start;
    start += count[e];
  }
  for (int64_t p = 0; p < num_pairs; ++p) {
    const int64_t place = next[expert[p]]++;
    pair_at[place] = p;
    place_of[p] = place;
  }
}

template <class Row>
void gather_rows(
    const Row* in, const int64_t* index, int64_t divisor, int64_t num_rows, int64_t D, Row* out) {
  parallel_for(num_rows, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      std::memcpy(out + i * D, in + index[i] / divisor * D, sizeof(Row) * D);
  });
}

template <class Row>
void scatter_rows(const Row* in, const int64_t* index, int64_t num_rows, int64_t D, Row* out) {
  parallel_for(num_rows, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      std::memcpy(out + index[i] * D, in + i * D, sizeof(Row) * D);
  });
}

template <class Row>
void combine_rows(const Row* rows,
                  const int64_t* place_of,
                  const Sum<Row>* gate,
                  int64_t T,
                  int64_t K,
                  int64_t D,
                  Row* out) {
  parallel_for(T, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t)
      each_vector<Sum<Row>>(D, [&](int64_t d, auto n) COHORT_LAMBDA {
        Vector<Sum<Row>> sum{};
        for (int64_t k = 0; k < K; ++k) {
          const auto row = load(rows + place_of[t * K + k] * D + d, n);
          sum += gate ? gate[t * K + k] * row : row;
        }
        store(out + t * D + d, sum, n);
      });
  });
}

template <class Row>
void combine_rows_backward(const Row* d_out,
                           const Row* rows,
                           const int64_t* place_of,
                           const Sum<Row>* gate,
                           int64_t T,
                           int64_t K,
                           int64_t D,
                           Row* d_rows,
                           Sum<Row>* d_gate) {
  parallel_for(T, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin * K; p < end * K; ++p) {
      const Row* d = d_out + p / K * D;
      const Row* row = rows + place_of[p] * D;
      Row* d_row = d_rows + place_of[p] * D;
      Vector<Sum<Row>> dot{};
      each_vector<Sum<Row>>(D, [&](int64_t i, auto n) COHORT_LAMBDA {
        const auto gradient = load(d + i, n);
        dot += gradient * load(row + i, n);
        store(d_row + i, gate[p] * gradient, n);
      });
      d_gate[p] = sum_of<Sum<Row>>(dot);
    }
  });
}

#define COHORT_INSTANTIATE(Row)                                                           \
  template void gather_rows(const Row*, const int64_t*, int64_t, int64_t, int64_t, Row*); \
  template void scatter_rows(const Row*, const int64_t*, int64_t, int64_t, Row*);         \
  template void combine_rows(                                                             \
      const Row*, const int64_t*, const Sum<Row>*, int64_t, int64_t, int64_t, Row*);      \
  template void combine_rows_backward(const Row*,                                         \
                                      const Row*,                                         \
                                      const int64_t*,                                     \
                                      const Sum<Row>*,                                    \
                                      int64_t,                                            \
                                      int64_t,                                            \
                                      int64_t,                                            \
                                      Row*,                                               \
                                      Sum<Row>*);
COHORT_INSTANTIATE(float)
COHORT_INSTANTIATE(double)
COHORT_INSTANTIATE(bf16)
#undef COHORT_INSTANTIATE

}  // namespace cohort::kernels
