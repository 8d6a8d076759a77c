// SwiGLU networks: dense, and the routed experts of a layer stacked.
#pragma once
#include <ATen/ATen.h>

#include <string>
#include <vector>

#include "core/nn/init.h"
#include "core/nn/parameter.h"

namespace cohort::moe {

/// down(silu(gate x) * up x). gate_proj and up_proj are the halves of one matrix, so that one product
/// makes both.
class Mlp {
 public:
  /// Names below `prefix` ("model.layers.0.mlp."): gate_proj, up_proj, down_proj.
  Mlp(int64_t hidden, int64_t inner, const std::string& prefix, const core::Initializer& init);
  at::Tensor forward(const at::Tensor& x) const;  ///< [..., D] -> [..., D]
  void collect(core::ParameterList& out) const;

 private:
  core::Parameter gate_up_;  ///< [2 I, D]
  core::Parameter down_;     ///< [D, I]
};

/// Experts [first, first + count) of a layer.
class Experts {
 public:
  /// Names: prefix + "experts.<global index>.gate_proj.weight", ...
  Experts(int64_t first,
          int64_t count,
          int64_t hidden,
          int64_t inner,
          const std::string& prefix,
          const core::Initializer& init);
  /// x_RD sorted by expert, rows[e] of them for each -> y_RD. An expert without rows costs nothing.
  at::Tensor forward(const at::Tensor& x_RD, const std::vector<int64_t>& rows) const;
  void collect(core::ParameterList& out) const;

 private:
  core::Parameter gate_up_;  ///< [count, 2 I, D]
  core::Parameter down_;     ///< [count, D, I]
};

}  // namespace cohort::moe
