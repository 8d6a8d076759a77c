// Compiled with COHORT_GPU alone.
#include <cuda_runtime_api.h>

#include "core/base/error.h"
#include "distributed/device_choice.h"

namespace cohort::distributed {

std::vector<VisibleGpu> visible_gpus() {
  int count = 0;
  // Without a driver or a GPU this is an error; for who asks it is the same as none.
  if (cudaGetDeviceCount(&count) != cudaSuccess) count = 0;
  std::vector<VisibleGpu> found;
  for (int index = 0; index < count; ++index) {
    cudaDeviceProp properties;
    if (cudaGetDeviceProperties(&properties, index) != cudaSuccess) continue;
    found.push_back({gpu_uuid_text(reinterpret_cast<const unsigned char*>(properties.uuid.bytes)),
                     properties.name});
  }
  return found;
}

void use_gpu(int index) {
  const cudaError_t code = cudaSetDevice(index);
  COHORT_CHECK(code == cudaSuccess, "GPU {}: {}", index, cudaGetErrorString(code));
}

}  // namespace cohort::distributed
