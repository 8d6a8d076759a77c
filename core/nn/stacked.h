// Projections that read the same input, stacked into one parameter and one matrix product.
#pragma once
#include <ATen/ATen.h>

#include <string>
#include <vector>

#include "core/nn/init.h"
#include "core/nn/parameter.h"

namespace cohort::core {

struct ProjectionPart {
  std::string name;  ///< Hugging Face's, without ".weight".
  int64_t out_dim;
  bool bias;
};

/// y = [W_1 x + b_1; W_2 x + b_2; ...].
class StackedProjection {
 public:
  StackedProjection(std::vector<ProjectionPart> parts, int64_t in_dim, const Initializer& init);

  /// x [..., in_dim] -> [..., sum of out_dim]. Take it apart with at::split_with_sizes: its
  /// gradient is put together in one pass.
  at::Tensor forward(const at::Tensor& x) const;
  /// The weights as one parameter with the parts' names, then the biases likewise.
  void collect(ParameterList& out) const;

 private:
  std::vector<ProjectionPart> parts_;
  at::Tensor weight_;  ///< [sum of out_dim, in_dim]
  at::Tensor bias_;    ///< [sum of out_dim of the parts that have one], or undefined.
};

}  // namespace cohort::core
