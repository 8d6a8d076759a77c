// Moving token rows to their experts and back, on raw pointers.
//
// A pair p = t K + k is token t with its k-th expert. `sort_pairs` is one counting sort of the T K
// pairs; the rest are single passes over rows of D elements: bytes moved = rows x D x element size,
// read once and written once. Sums are taken in fp32 (fp64 for fp64 rows) in the order of k, so the
// result does not depend on threads or on the mesh.
#pragma once
#include <cstdint>

namespace cohort::kernels {

/// bf16 as it lies in memory.
struct Bf16 {
  uint16_t bits;
};

/// Stable counting sort of pairs by expert. count [E]; pair_at [T K]: the pair at each sorted place;
/// place_of [T K]: its inverse.
void sort_pairs(
    const int64_t* expert, int64_t num_pairs, int64_t E, int64_t* count, int64_t* pair_at, int64_t* place_of);

/// out[i] = in[index[i] / divisor], rows of D. Row is float, double or Bf16.
template <class Row>
void gather_rows(const Row* in, const int64_t* index, int64_t divisor, int64_t num_rows, int64_t D, Row* out);

/// out[index[i]] = in[i], rows of D; index is a permutation.
template <class Row>
void scatter_rows(const Row* in, const int64_t* index, int64_t num_rows, int64_t D, Row* out);

/// out[t] = sum_k gate[t, k] rows[place_of[t K + k]]; gate null means ones. Gate is float, or double
/// for double rows.
template <class Row, class Gate>
void combine_rows(
    const Row* rows, const int64_t* place_of, const Gate* gate, int64_t T, int64_t K, int64_t D, Row* out);

/// d_rows[place_of[p]] = gate[p] d_out[t] and d_gate[p] = <d_out[t], rows[place_of[p]]>.
template <class Row, class Gate>
void combine_rows_backward(const Row* d_out,
                           const Row* rows,
                           const int64_t* place_of,
                           const Gate* gate,
                           int64_t T,
                           int64_t K,
                           int64_t D,
                           Row* d_rows,
                           Gate* d_gate);

}  // namespace cohort::kernels
