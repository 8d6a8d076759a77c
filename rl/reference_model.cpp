#include "rl/reference_model.h"

#include "moe/model_state.h"

namespace cohort::rl {
namespace {

constexpr const char* kPrefix = "reference.";

}  // namespace

ReferenceModel::ReferenceModel(const moe::Transformer& policy, const distributed::Mesh& mesh)
    : mesh_(mesh), model_(policy.config(), mesh.ep, 0, policy.dtype(), policy.device()) {
  for (auto& parameter : model_.parameters()) parameter.value.set_requires_grad(false);
  refresh(policy);
}

void ReferenceModel::refresh(const moe::Transformer& policy) { moe::copy_weights(policy, model_); }

void ReferenceModel::add_to(distributed::CheckpointContent& content) const {
  for (auto& slice : moe::weight_slices(model_, mesh_, kPrefix))
    content.optimizer.push_back(std::move(slice));
}

bool ReferenceModel::load(const distributed::CheckpointReader& reader) {
  if (!reader.has(kPrefix + model_.parameters().front().parts.front().name)) return false;
  moe::load_weights(reader, model_, kPrefix);
  return true;
}

}  // namespace cohort::rl
