// Our device kernels, run on the host, behind the operations of core and moe.
#pragma once
#include "core/base/device_kernels.h"
#include "tests/device_branch.h"

namespace cohort::tests {

template <auto Member>
struct CountedCall;

/// A call of the emulated table that is counted.
template <class... Arguments, void (*kernels::DeviceTable::*Member)(Arguments...)>
struct CountedCall<Member> {
  static inline int calls = 0;
  static void call(Arguments... arguments) {
    ++calls;
    (kernels::emulated::device_table().*Member)(arguments...);
  }
};

/// While it lives, tensors on the CPU take the device branch with the kernels.
class EmulatedKernels {
 public:
  EmulatedKernels() : table_(kernels::emulated::device_table()) {
    count<&kernels::DeviceTable::sort_pairs>();
    count<&kernels::DeviceTable::gather_rows>();
    count<&kernels::DeviceTable::scatter_rows>();
    count<&kernels::DeviceTable::combine_rows>();
    count<&kernels::DeviceTable::combine_rows_backward>();
    count<&kernels::DeviceTable::route>();
    count<&kernels::DeviceTable::route_backward>();
    count<&kernels::DeviceTable::attention_forward>();
    count<&kernels::DeviceTable::attention_backward>();
    count<&kernels::DeviceTable::attention_decode>();
    core::set_device_kernels_on_cpu(&table_);
  }
  ~EmulatedKernels() { core::set_device_kernels_on_cpu(nullptr); }
  EmulatedKernels(const EmulatedKernels&) = delete;

  /// Calls of one kernel since this object was made.
  template <auto Member>
  static int calls() {
    return CountedCall<Member>::calls;
  }

 private:
  template <auto Member>
  void count() {
    CountedCall<Member>::calls = 0;
    table_.*Member = &CountedCall<Member>::call;
  }

  kernels::DeviceTable table_;
  DeviceBranch branch_;
};

}  // namespace cohort::tests
