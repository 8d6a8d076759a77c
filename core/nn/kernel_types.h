// From a tensor's dtype to the kernels' element types.
#pragma once
#include <ATen/ATen.h>

#include "core/base/error.h"
#include "kernels/cpu/simd.h"

namespace cohort::core {

/// Calls body(T{}) with the element type of `tensor`: float, double or kernels::bf16. Throws Error
/// naming `op` for another dtype or for a tensor that is not on the CPU.
template <class Body>
void with_kernel_type(const char* op, const at::Tensor& tensor, const Body& body) {
  COHORT_CHECK(tensor.device().is_cpu(),
               "{}: there is a CPU kernel only, the tensor is on {}",
               op,
               tensor.device().str());
  switch (tensor.scalar_type()) {
    case at::kFloat:
      return body(float{});
    case at::kDouble:
      return body(double{});
    case at::kBFloat16:
      return body(kernels::bf16{});
    default:
      COHORT_CHECK(false,
                   "{}: dtype must be float32, float64 or bfloat16, not {}",
                   op,
                   at::toString(tensor.scalar_type()));
  }
}

/// The dtype in which kernels sum elements of `dtype`.
inline at::ScalarType sum_dtype(at::ScalarType dtype) {
  return dtype == at::kDouble ? at::kDouble : at::kFloat;
}

template <class T>
T* elements(const at::Tensor& tensor) {
  return tensor.defined() ? static_cast<T*>(tensor.data_ptr()) : nullptr;
}

}  // namespace cohort::core
