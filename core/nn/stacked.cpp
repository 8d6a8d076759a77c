#include "core/nn/stacked.h"

#include "core/nn/linear.h"

namespace cohort::core {

StackedProjection::StackedProjection(std::vector<ProjectionPart> parts,
                                     int64_t in_dim,
                                     const Initializer& init)
    : parts_(std::move(parts)) {
  int64_t rows = 0, biases = 0;
  for (const auto& part : parts_) {
    rows += part.out_dim;
    if (part.bias) biases += part.out_dim;
  }
  weight_ = at::empty({rows, in_dim}, at::TensorOptions().dtype(init.dtype).device(init.device));
  int64_t row = 0;
  for (const auto& part : parts_) {
    init.fill_normal(part.name + ".weight", weight_.narrow(0, row, part.out_dim));
    row += part.out_dim;
  }
  weight_.set_requires_grad(true);
  if (biases) bias_ = init.zeros({biases});
}

at::Tensor StackedProjection::forward(const at::Tensor& x) const {
  const auto y = core::linear(x, weight_);
  if (!bias_.defined()) return y;
  std::vector<at::Tensor> spread;
  int64_t at = 0;
  for (const auto& part : parts_) {
    spread.push_back(part.bias ? bias_.narrow(0, at, part.out_dim)
                               : at::zeros({part.out_dim}, bias_.options().requires_grad(false)));
    if (part.bias) at += part.out_dim;
  }
  return y + at::cat(spread);
}

void StackedProjection::collect(ParameterList& out) const {
  Parameter weight{weight_, {}, Replicas::kData, false}, bias{bias_, {}, Replicas::kData, false};
  int64_t weight_at = 0, bias_at = 0;
  for (const auto& part : parts_) {
    weight.parts.push_back({part.name + ".weight", weight_at, {part.out_dim, weight_.size(1)}});
    weight_at += part.out_dim * weight_.size(1);
    if (!part.bias) continue;
    bias.parts.push_back({part.name + ".bias", bias_at, {part.out_dim}});
    bias_at += part.out_dim;
  }
  out.push_back(std::move(weight));
  if (bias_.defined()) out.push_back(std::move(bias));
}

}  // namespace cohort::core
