// Where a run's tensors live, and which GPU is whose.
#pragma once
#include <ATen/ATen.h>

#include <functional>
#include <string>
#include <vector>

namespace cohort::distributed {

/// A GPU as the CUDA runtime shows it to this process.
struct VisibleGpu {
  std::string uuid;  ///< "GPU-8f6d...": the same for every process that sees this GPU.
  std::string name;  ///< "NVIDIA H100 80GB HBM3".
};

/// In the runtime's order. Empty without a GPU or a driver, and in a binary built without CUDA.
std::vector<VisibleGpu> visible_gpus();

/// Makes a GPU the current one of this thread; nothing in a binary built without CUDA.
void use_gpu(int index);

/// What one rank sees: the name of its machine, and the UUIDs in the runtime's order.
struct RankGpus {
  std::string host;
  std::vector<std::string> uuids;
};

/// One GPU a rank: for each rank the index in its own list of the first GPU that no rank before it
/// has. So the n-th rank of a machine takes the n-th GPU where all see the same ones, and its own
/// where the launcher gave each rank one. Throws InputError with rank, host and UUID when a rank
/// sees none or those it sees are taken (NCCL refuses two ranks on one GPU). `wanted`: run.device,
/// for messages.
std::vector<int> assign_gpus(const std::vector<RankGpus>& ranks,
                             const std::string& wanted = "cuda");

/// "GPU-xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx" of 16 bytes.
std::string gpu_uuid_text(const unsigned char* bytes);

/// Collective over all ranks; to be called before anything is allocated. `wanted` is run.device:
/// cpu; cuda, this rank's GPU; or auto, which is cuda when any rank sees a GPU (then each must have
/// one of its own) and else cpu. `visible` is replaced in tests alone.
at::Device choose_device(const std::string& wanted,
                         const std::function<std::vector<VisibleGpu>()>& visible = visible_gpus);

/// Where the models of this process live, and so its meshes' tensors (make_mesh): the CPU until it
/// is set. A GPU becomes the CUDA runtime's current device of this thread.
void set_run_device(at::Device device);
at::Device run_device();

}  // namespace cohort::distributed
