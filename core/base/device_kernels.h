// Our own kernels for tensors on a device, where there are any for them; elsewhere the device
// branch (core/base/device_branch.h) is LibTorch's operations.
#pragma once
#include <ATen/ATen.h>

#include "kernels/device_table.h"

namespace cohort::core {

/// The kernels for operations on `tensor`, or null: fp64, a binary without COHORT_GPU, the CPU
/// (unless a test has set some).
const kernels::DeviceTable* device_kernels(const at::Tensor& tensor);

/// Kernels for tensors on the CPU that take the device branch; null: none. For tests.
void set_device_kernels_on_cpu(const kernels::DeviceTable* table);

/// Whether attention on a device is by wgmma and TMA (kernels/cuda/attention_*_hopper.cu): where
/// the environment has COHORT_ATTENTION=wgmma, until a GPU has been seen to gain. Throws InputError
/// for other values than wgmma and portable.
bool wgmma_attention();
void set_wgmma_attention(bool on);  ///< For tests.

/// The stream that operations on `tensor` are queued in: a cudaStream_t, null on the CPU.
void* device_stream(const at::Tensor& tensor);

/// Of a tensor that device_kernels has kernels for.
kernels::Element device_element(const at::Tensor& tensor);

/// `bytes` of memory where `like` is, for a kernel to work in.
at::Tensor device_workspace(size_t bytes, const at::Tensor& like);

}  // namespace cohort::core
