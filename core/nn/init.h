// Initial weights: each element is a function of (seed, parameter name, index), so a model is the
// same on every mesh.
#pragma once
#include <ATen/ATen.h>

#include <cstdint>
#include <string>

namespace cohort::core {

/// What a layer needs to make its parameters.
struct Initializer {
  uint64_t seed = 1;
  double std = 0.02;                  ///< Of the normal distribution of matrices; 0: zeros, for a
                                      ///< model whose weights are read.
  at::ScalarType dtype = at::kFloat;  ///< Drawn in fp64, rounded once.
  at::Device device = at::kCPU;

  /// Normal(0, std), leaf that requires a gradient.
  at::Tensor normal(const std::string& name, at::IntArrayRef shape) const;
  /// Ones (norms) and zeros (biases), leaves that require a gradient.
  at::Tensor ones(at::IntArrayRef shape) const;
  at::Tensor zeros(at::IntArrayRef shape) const;
  /// Writes Normal(0, std) into a contiguous view (one expert of a stacked parameter).
  void fill_normal(const std::string& name, at::Tensor view) const;
};

}  // namespace cohort::core
