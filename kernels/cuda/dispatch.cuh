// Device twins of kernels/cpu/dispatch.h: moving token rows to their experts and back. Pointers are
// device memory, `stream` is where the work is queued; nothing here waits for the host.
#pragma once
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace cohort::kernels::cuda {

/// out[i] = in[index[i] / divisor], rows of D elements. Row is float or __nv_bfloat16; a row is a
/// multiple of 16 bytes and aligned to them.
template <class Row>
void gather_rows(const Row* in,
                 const int64_t* index,
                 int64_t divisor,
                 int64_t num_rows,
                 int64_t D,
                 Row* out,
                 cudaStream_t stream);

/// out[t] = sum_k gate[t, k] rows[place_of[t K + k]], in fp32, in the order of k; gate null: ones.
template <class Row>
void combine_rows(const Row* rows,
                  const int64_t* place_of,
                  const float* gate,
                  int64_t T,
                  int64_t K,
                  int64_t D,
                  Row* out,
                  cudaStream_t stream);

}  // namespace cohort::kernels::cuda
