#include "core/gpu/cuda_kernels.h"

#include <c10/cuda/CUDAStream.h>

namespace cohort::core {

const kernels::DeviceTable* cuda_kernels() {
#ifdef COHORT_CUDA
  return &kernels::cuda::device_table();
#else
  return nullptr;
#endif
}

void* cuda_stream(const at::Tensor& tensor) {
  return c10::cuda::getCurrentCUDAStream(tensor.get_device()).stream();
}

}  // namespace cohort::core
