// The kernels of a binary with COHORT_GPU, and LibTorch's stream for them.
#pragma once
#include <ATen/ATen.h>

#include "kernels/device_table.h"

namespace cohort::core {

/// Null in a binary that was built without nvcc.
const kernels::DeviceTable* cuda_kernels();
/// The current stream of the tensor's GPU.
void* cuda_stream(const at::Tensor& tensor);

}  // namespace cohort::core
