#include "kernels/cpu/dispatch.h"

#include <bit>
#include <cstring>
#include <vector>

#include "kernels/cpu/parallel.h"

namespace cohort::kernels {
namespace {

constexpr int64_t kGrain = 16;  // rows a thread at least

float load(float x) { return x; }
double load(double x) { return x; }
float load(Bf16 x) { return std::bit_cast<float>(static_cast<uint32_t>(x.bits) << 16); }
void store(float value, float* out) { *out = value; }
void store(double value, double* out) { *out = value; }
void store(float value, Bf16* out) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t nearest_even = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  out->bits = static_cast<uint16_t>(value != value ? 0x7fc0u : nearest_even);
}

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

template <class Row, class Gate>
void combine_rows(const Row* rows,
                  const int64_t* place_of,
                  const Gate* gate,
                  int64_t T,
                  int64_t K,
                  int64_t D,
                  Row* out) {
  parallel_for(T, kGrain, [&](int64_t begin, int64_t end) {
    std::vector<Gate> sum(D);
    for (int64_t t = begin; t < end; ++t) {
      std::memset(sum.data(), 0, sizeof(Gate) * D);
      for (int64_t k = 0; k < K; ++k) {
        const Row* row = rows + place_of[t * K + k] * D;
        const Gate weight = gate ? gate[t * K + k] : Gate(1);
        for (int64_t d = 0; d < D; ++d) sum[d] += weight * load(row[d]);
      }
      for (int64_t d = 0; d < D; ++d) store(sum[d], out + t * D + d);
    }
  });
}

template <class Row, class Gate>
void combine_rows_backward(const Row* d_out,
                           const Row* rows,
                           const int64_t* place_of,
                           const Gate* gate,
                           int64_t T,
                           int64_t K,
                           int64_t D,
                           Row* d_rows,
                           Gate* d_gate) {
  parallel_for(T, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const Row* d = d_out + t * D;
      for (int64_t k = 0; k < K; ++k) {
        const int64_t place = place_of[t * K + k];
        const Row* row = rows + place * D;
        Row* d_row = d_rows + place * D;
        const Gate weight = gate[t * K + k];
        Gate dot = 0;
#pragma omp simd reduction(+ : dot)
        for (int64_t i = 0; i < D; ++i) dot += static_cast<Gate>(load(d[i])) * load(row[i]);
        for (int64_t i = 0; i < D; ++i) store(weight * load(d[i]), d_row + i);
        d_gate[t * K + k] = dot;
      }
    }
  });
}

#define COHORT_INSTANTIATE(Row, Gate)                                                             \
  template void gather_rows(const Row*, const int64_t*, int64_t, int64_t, int64_t, Row*);         \
  template void scatter_rows(const Row*, const int64_t*, int64_t, int64_t, Row*);                 \
  template void combine_rows(                                                                     \
      const Row*, const int64_t*, const Gate*, int64_t, int64_t, int64_t, Row*);                  \
  template void combine_rows_backward(const Row*,                                                 \
                                      const Row*,                                                 \
                                      const int64_t*,                                             \
                                      const Gate*,                                                \
                                      int64_t,                                                    \
                                      int64_t,                                                    \
                                      int64_t,                                                    \
                                      Row*,                                                       \
                                      Gate*);
COHORT_INSTANTIATE(float, float)
COHORT_INSTANTIATE(double, double)
COHORT_INSTANTIATE(Bf16, float)
#undef COHORT_INSTANTIATE

}  // namespace cohort::kernels
