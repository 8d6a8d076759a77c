#include "moe/model_state.h"

#include "core/base/error.h"

namespace cohort::moe {
namespace {

at::Tensor part_view(const core::Parameter& parameter, const core::ParameterPart& part) {
  int64_t count = 1;
  for (int64_t size : part.shape) count *= size;
  return parameter.value.detach().view({-1}).narrow(0, part.offset, count).view(part.shape);
}

void check_shape(const distributed::CheckpointReader& reader,
                 const std::string& name,
                 const std::vector<int64_t>& shape) {
  COHORT_CHECK_INPUT(reader.has(name), "the checkpoint has no tensor '{}'", name);
  COHORT_CHECK_INPUT(reader.shape(name) == shape,
                     "tensor '{}' is [{}] in the checkpoint and [{}] in the model",
                     name,
                     fmt::join(reader.shape(name), ", "),
                     fmt::join(shape, ", "));
}

distributed::CheckpointSlice whole(const std::string& name, const at::Tensor& value) {
  return {name, value.sizes().vec(), 0, value.numel(), value};
}

}  // namespace

void load_weights(Transformer& model, const TensorSource& source) {
  at::NoGradGuard no_grad;
  for (const auto& parameter : model.parameters())
    for (const auto& part : parameter.parts)
      part_view(parameter, part).copy_(source(part.name, part.shape));
  for (auto& buffer : model.buffers())
    buffer.value.copy_(source(buffer.name, buffer.value.sizes().vec()));
}

void copy_weights(const Transformer& from, Transformer& to) {
  at::NoGradGuard no_grad;
  const auto sources = from.parameters();
  auto targets = to.parameters();
  COHORT_CHECK(sources.size() == targets.size(),
               "weights of {} parameters for a model of {}",
               sources.size(),
               targets.size());
  for (size_t i = 0; i < sources.size(); ++i) targets[i].value.copy_(sources[i].value);
  const auto source_buffers = from.buffers();
  auto target_buffers = to.buffers();
  for (size_t i = 0; i < source_buffers.size(); ++i)
    target_buffers[i].value.copy_(source_buffers[i].value);
}

std::vector<distributed::CheckpointSlice> weight_slices(const Transformer& model,
                                                        const distributed::Mesh& mesh,
                                                        const std::string& prefix) {
  std::vector<distributed::CheckpointSlice> slices;
  const auto& shape = mesh.shape;
  int64_t dense = 0, expert = 0;
  for (const auto& parameter : model.parameters())
    for (const auto& part : parameter.parts) {
      const bool mine = parameter.replicas == core::Replicas::kExpert
                            ? expert++ % shape.edp == shape.edp_rank
                            : dense++ % shape.dp == shape.dp_rank;
      if (mine) slices.push_back(whole(prefix + part.name, part_view(parameter, part)));
    }
  if (shape.rank == 0)
    for (const auto& buffer : model.buffers())
      slices.push_back(whole(prefix + buffer.name, buffer.value));
  return slices;
}

distributed::CheckpointContent checkpoint_content(const Transformer& model,
                                                  distributed::ShardedOptimizer& optimizer,
                                                  const distributed::Mesh& mesh) {
  distributed::CheckpointContent content;
  content.model = weight_slices(model, mesh);
  const bool masters_are_weights = model.dtype() != at::kBFloat16;
  for (const auto& slice : optimizer.owned_slices())
    for (const auto& [kind, values] : slice.state)
      if (kind != "master" || !masters_are_weights)
        content.optimizer.push_back(
            {slice.name + "#" + kind, slice.shape, slice.begin, slice.end, values});
  return content;
}

void load_weights(const distributed::CheckpointReader& reader,
                  Transformer& model,
                  const std::string& prefix) {
  load_weights(model, [&](const std::string& name, const std::vector<int64_t>& shape) {
    check_shape(reader, prefix + name, shape);
    return reader.tensor(prefix + name);
  });
}

void load_checkpoint(const distributed::CheckpointReader& reader,
                     Transformer& model,
                     distributed::ShardedOptimizer& optimizer,
                     bool moments) {
  load_weights(reader, model);
  at::NoGradGuard no_grad;
  for (auto& slice : optimizer.owned_slices())
    for (auto& [kind, values] : slice.state) {
      if (kind != "master" && !moments) continue;
      std::string name = slice.name + "#" + kind;
      // Written by an fp32 run: the weights are the masters.
      if (kind == "master" && !reader.has(name)) name = slice.name;
      check_shape(reader, name, slice.shape);
      values.copy_(reader.elements(name, slice.begin, slice.end, values.scalar_type()));
    }
  optimizer.masters_changed();
}

}  // namespace cohort::moe
