// Whether weights are numbers.
#pragma once
#include <ATen/ATen.h>

namespace cohort::core {

/// False when an element is NaN or infinite. Contiguous CPU tensor of any dtype that safetensors
/// files hold; whole numbers are finite.
bool all_finite(const at::Tensor& values);

}  // namespace cohort::core
