// Routing where the tensors are on a device: our kernels where there are any
// (core/base/device_kernels.h), else LibTorch's operations; differentiable either way.
#pragma once
#include <ATen/ATen.h>

#include "kernels/cpu/router.h"
#include "moe/router.h"

namespace cohort::moe {

/// How `rows` sequences of top.T tokens in all are routed.
struct RouterShape {
  kernels::TopKShape top;
  kernels::Scoring scoring;
  int64_t rows;
  bool normalise;
  double scale;
};

namespace device {

/// moe::route; bias_E and given_TK may be undefined.
Routing route(const at::Tensor& logits_TE,
              const at::Tensor& bias_E,
              const at::Tensor& given_TK,
              const RouterShape& shape);

}  // namespace device
}  // namespace cohort::moe
