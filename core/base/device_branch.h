// Which branch an operation takes: kernels on the memory of the CPU, or the device branch, which is
// made of LibTorch's operations and runs wherever the tensors are. And the one way in which values
// come back from a device.
//
// The device branch is the same code on a GPU and on the CPU. With COHORT_DEVICE_OPS=aten in the
// environment (or set_device_ops_on_cpu) tensors on the CPU take it too, so that a machine without
// a GPU executes every line of it in tests.
#pragma once
#include <ATen/ATen.h>

namespace cohort::core {

/// Whether tensors on the CPU take the device branch: COHORT_DEVICE_OPS is "aten" (InputError for
/// another text), until it is set here. For tests.
bool device_ops_on_cpu();
void set_device_ops_on_cpu(bool on);

/// Whether an operation on `tensor` takes the device branch.
inline bool takes_device_branch(const at::Tensor& tensor) {
  return !tensor.is_cpu() || device_ops_on_cpu();
}

/// The tensor's values on the CPU; differentiable. The host waits for the device here and, in a
/// training step, nowhere else, so the copies of a step can be counted. A tensor on the CPU is
/// given back itself: do not write to it.
at::Tensor to_host(const at::Tensor& tensor);
/// The value of a tensor of one element, through to_host.
double host_value(const at::Tensor& scalar);
/// How often the device branch of this process has called to_host.
int64_t num_host_copies();

}  // namespace cohort::core
