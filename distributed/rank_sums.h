// Reductions of equally long arrays, one from each rank, taken in the order of ranks: the same bits
// on every rank, from run to run, and however the messages arrived.
#pragma once
#include <ATen/ATen.h>

#include <vector>

#include "distributed/communicator.h"

namespace cohort::distributed {

/// out[i] = rows[0][i] op rows[1][i] op ... for i < n. Sums of bf16 are taken in fp32 and rounded
/// once; max and min of a NaN are NaN. `out` may be one of the rows. dtype: fp32, fp64, bf16,
/// int64.
void reduce_rows(
    void* out, const std::vector<const void*>& rows, int64_t n, at::ScalarType dtype, ReduceOp op);

}  // namespace cohort::distributed
