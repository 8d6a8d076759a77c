#include "core/base/device_branch.h"

#include <atomic>
#include <cstdlib>
#include <string>

#include "core/base/error.h"

namespace cohort::core {
namespace {

bool asked_by_environment() {
  const char* text = std::getenv("COHORT_DEVICE_OPS");
  const std::string choice = text ? text : "";
  COHORT_CHECK_INPUT(choice.empty() || choice == "aten",
                     "environment variable COHORT_DEVICE_OPS is '{}': should be aten or unset",
                     choice);
  return choice == "aten";
}

std::atomic<bool>& on_cpu() {
  static std::atomic<bool> on{asked_by_environment()};
  return on;
}

std::atomic<int64_t> copies{0};

}  // namespace

bool device_ops_on_cpu() { return on_cpu().load(std::memory_order_relaxed); }
void set_device_ops_on_cpu(bool on) { on_cpu() = on; }

at::Tensor to_host(const at::Tensor& tensor) {
  if (takes_device_branch(tensor)) ++copies;
  return tensor.is_cpu() ? tensor : tensor.to(at::kCPU);
}

double host_value(const at::Tensor& scalar) {
  const at::Tensor host = to_host(scalar.detach()).to(at::kDouble);
  COHORT_CHECK(host.numel() == 1, "one value was wanted of {}", host.numel());
  return *host.const_data_ptr<double>();
}

int64_t num_host_copies() { return copies; }

}  // namespace cohort::core
