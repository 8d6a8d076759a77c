#include "moe/mlp.h"

#include "core/nn/linear.h"
#include "core/nn/swiglu.h"

namespace cohort::moe {
namespace {

/// A [count * rows, columns] stack of matrices drawn by name, so that each is the same on every mesh.
core::Parameter stacked(const std::vector<std::string>& names,
                        at::IntArrayRef shape,
                        int64_t rows,
                        int64_t columns,
                        const core::Initializer& init) {
  core::Parameter parameter;
  parameter.value = init.zeros(shape);
  at::NoGradGuard no_grad;
  const at::Tensor flat = parameter.value.detach().view({-1, columns});
  for (size_t i = 0; i < names.size(); ++i) {
    const int64_t first = static_cast<int64_t>(i) * rows;
    init.fill_normal(names[i], flat.narrow(0, first, rows));
    parameter.parts.push_back({names[i], first * columns, {rows, columns}});
  }
  return parameter;
}

}  // namespace

Mlp::Mlp(int64_t hidden, int64_t inner, const std::string& prefix, const core::Initializer& init)
    : gate_up_(stacked({prefix + "gate_proj.weight", prefix + "up_proj.weight"},
                       {2 * inner, hidden},
                       inner,
                       hidden,
                       init)),
      down_(stacked({prefix + "down_proj.weight"}, {hidden, inner}, hidden, inner, init)) {}

at::Tensor Mlp::forward(const at::Tensor& x) const {
  return core::linear(core::swiglu(core::linear(x, gate_up_.value)), down_.value);
}

void Mlp::collect(core::ParameterList& out) const {
  out.push_back(gate_up_);
  out.push_back(down_);
}

Experts::Experts(int64_t first,
                 int64_t count,
                 int64_t hidden,
                 int64_t inner,
                 const std::string& prefix,
                 const core::Initializer& init) {
  std::vector<std::string> gate_up, down;
  for (int64_t e = first; e < first + count; ++e) {
    const std::string name = prefix + "experts." + std::to_string(e) + ".";
    gate_up.push_back(name + "gate_proj.weight");
    gate_up.push_back(name + "up_proj.weight");
    down.push_back(name + "down_proj.weight");
  }
  gate_up_ = stacked(gate_up, {count, 2 * inner, hidden}, inner, hidden, init);
  down_ = stacked(down, {count, hidden, inner}, hidden, inner, init);
  gate_up_.replicas = down_.replicas = core::Replicas::kExpert;
}

at::Tensor Experts::forward(const at::Tensor& x_RD, const std::vector<int64_t>& rows) const {
  const at::Tensor inner = core::swiglu(core::grouped_linear(x_RD, gate_up_.value, rows));
  return core::grouped_linear(inner, down_.value, rows);
}

void Experts::collect(core::ParameterList& out) const {
  out.push_back(gate_up_);
  out.push_back(down_);
}

}  // namespace cohort::moe
