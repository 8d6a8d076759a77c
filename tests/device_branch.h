// Running the device branch on the CPU, and seeing what it would wait for on a device.
#pragma once
#include <ATen/record_function.h>

#include <cstring>

#include "core/base/device_branch.h"

namespace cohort::tests {

/// While it lives, tensors on the CPU take the device branch.
class DeviceBranch {
 public:
  DeviceBranch() : before_(core::device_ops_on_cpu()) { core::set_device_ops_on_cpu(true); }
  ~DeviceBranch() { core::set_device_ops_on_cpu(before_); }
  DeviceBranch(const DeviceBranch&) = delete;

 private:
  bool before_;
};

/// While it lives, counts the calls of this thread to those of LibTorch's operations for which the
/// host would wait if the tensor were on a device.
class Waits {
 public:
  Waits() {
    count_ = 0;
    handle_ = at::addThreadLocalCallback(
        at::RecordFunctionCallback(&see).scopes({at::RecordScope::FUNCTION}));
  }
  ~Waits() { at::removeCallback(handle_); }
  Waits(const Waits&) = delete;
  static int64_t count() { return count_; }

 private:
  static std::unique_ptr<at::ObserverContext> see(const at::RecordFunction& call) {
    for (const char* waits : {"aten::_local_scalar_dense",
                              "aten::nonzero",
                              "aten::is_nonzero",
                              "aten::equal",
                              "aten::bincount",
                              "aten::masked_select",
                              "aten::_unique2",
                              "aten::unique_consecutive",
                              "aten::unique_dim",
                              "aten::repeat_interleave"})
      count_ += std::strcmp(call.name(), waits) == 0;
    return nullptr;
  }
  static inline thread_local int64_t count_ = 0;
  at::CallbackHandle handle_;
};

}  // namespace cohort::tests
