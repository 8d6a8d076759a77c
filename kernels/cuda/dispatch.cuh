// Device twins of kernels/cpu/dispatch.h: the same arguments and results. Pointers are device
// memory, `stream` is where the work is queued; nothing here waits for the host. Row is float or
// bf16; rows are contiguous and of any width, and move in pieces of 16 bytes where width and
// addresses are multiples of that. A pair p = t K + k is token t with its k-th expert.
#pragma once
#include <cstdint>

#include "kernels/cuda/device.cuh"

namespace cohort::kernels::COHORT_DEVICE {

/// Experts that sort_pairs can tell apart.
constexpr int64_t kMaxExperts = 1024;

/// Bytes of workspace that sort_pairs wants.
size_t sort_pairs_workspace(int64_t num_pairs, int64_t E);

/// Stable counting sort of pairs by expert. count [E]; pair_at [num_pairs]: the pair at each sorted
/// place; place_of [num_pairs]: its inverse. 0 < E <= kMaxExperts, 0 <= expert < E. The counts are
/// the one thing a host has to know: copy them once.
void sort_pairs(const int64_t* expert,
                int64_t num_pairs,
                int64_t E,
                int64_t* count,
                int64_t* pair_at,
                int64_t* place_of,
                void* workspace,
                Stream stream);

/// out[i] = in[index[i] / divisor], rows of D. With index = pair_at and divisor = K: packs the rows
/// of the tokens into the send buffer, by expert and so by rank.
template <class Row>
void gather_rows(const Row* in,
                 const int64_t* index,
                 int64_t divisor,
                 int64_t num_rows,
                 int64_t D,
                 Row* out,
                 Stream stream);

/// out[index[i]] = in[i]; index is a permutation.
template <class Row>
void scatter_rows(
    const Row* in, const int64_t* index, int64_t num_rows, int64_t D, Row* out, Stream stream);

/// out[t] = sum_k gate[t, k] rows[place_of[t K + k]], in fp32, in the order of k; gate null: ones.
/// With ones it is the backward of gather_rows.
template <class Row>
void combine_rows(const Row* rows,
                  const int64_t* place_of,
                  const float* gate,
                  int64_t T,
                  int64_t K,
                  int64_t D,
                  Row* out,
                  Stream stream);

/// d_rows[place_of[p]] = gate[p] d_out[t] and d_gate[p] = <d_out[t], rows[place_of[p]]>.
template <class Row>
void combine_rows_backward(const Row* d_out,
                           const Row* rows,
                           const int64_t* place_of,
                           const float* gate,
                           int64_t T,
                           int64_t K,
                           int64_t D,
                           Row* d_rows,
                           float* d_gate,
                           Stream stream);

}  // namespace cohort::kernels::COHORT_DEVICE
