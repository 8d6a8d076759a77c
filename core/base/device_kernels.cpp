#include "core/base/device_kernels.h"

#include <atomic>
#include <cstdlib>
#include <string>

#include "core/base/device_branch.h"
#include "core/base/error.h"
#ifdef COHORT_GPU
#include "core/gpu/cuda_kernels.h"
#endif

namespace cohort::core {
namespace {

std::atomic<const kernels::DeviceTable*> on_cpu{nullptr};

const kernels::DeviceTable* of_device(const at::Tensor& tensor) {
  if (tensor.is_cpu()) return device_ops_on_cpu() ? on_cpu.load() : nullptr;
#ifdef COHORT_GPU
  if (tensor.is_cuda()) return cuda_kernels();
#endif
  return nullptr;
}

std::atomic<bool>& by_wgmma() {
  static std::atomic<bool> on{[] {
    const char* text = std::getenv("COHORT_ATTENTION");
    const std::string choice = text ? text : "";
    COHORT_CHECK_INPUT(
        choice.empty() || choice == "portable" || choice == "wgmma",
        "environment variable COHORT_ATTENTION is '{}': should be portable, wgmma or unset",
        choice);
    return choice == "wgmma";
  }()};
  return on;
}

}  // namespace

const kernels::DeviceTable* device_kernels(const at::Tensor& tensor) {
  const auto dtype = tensor.scalar_type();
  return dtype == at::kFloat || dtype == at::kBFloat16 ? of_device(tensor) : nullptr;
}

void set_device_kernels_on_cpu(const kernels::DeviceTable* table) { on_cpu = table; }

bool wgmma_attention() { return by_wgmma().load(std::memory_order_relaxed); }
void set_wgmma_attention(bool on) { by_wgmma() = on; }

void* device_stream(const at::Tensor& tensor) {
#ifdef COHORT_GPU
  if (tensor.is_cuda()) return cuda_stream(tensor);
#endif
  return nullptr;
}

kernels::Element device_element(const at::Tensor& tensor) {
  return tensor.scalar_type() == at::kFloat ? kernels::Element::kFloat
                                            : kernels::Element::kBfloat16;
}

at::Tensor device_workspace(size_t bytes, const at::Tensor& like) {
  return at::empty({static_cast<int64_t>(bytes)}, like.options().dtype(at::kByte));
}

}  // namespace cohort::core
