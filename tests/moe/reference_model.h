// Reference cases that are Hugging Face folders: model and weights as a Transformer.
#pragma once
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "core/config/hf_config.h"
#include "core/io/safetensors.h"
#include "distributed/mesh.h"
#include "moe/model_state.h"
#include "moe/transformer.h"

namespace cohort::tests {

inline nlohmann::json read_json(const std::filesystem::path& path) {
  std::ifstream in(path);
  return nlohmann::json::parse(in);
}

struct ReferenceModel {
  distributed::Mesh mesh = distributed::make_local_mesh();
  core::ModelConfig config;
  std::unique_ptr<moe::Transformer> model;

  /// In fp32, as the reference was run.
  explicit ReferenceModel(const std::filesystem::path& folder)
      : config(core::model_config_from_hf(read_json(folder / "config.json"), folder.string())),
        model(std::make_unique<moe::Transformer>(config, mesh.ep, 1, at::kFloat)) {
    const auto weights = core::read_safetensors(folder.string());
    moe::load_weights(*model, [&](const std::string& name, const std::vector<int64_t>& shape) {
      const at::Tensor& value = weights.at(name);
      if (value.sizes() != at::IntArrayRef(shape)) throw std::runtime_error("shape of " + name);
      return value;
    });
  }
};

/// Calls check(name, ours, theirs) for every named tensor of `reference`; `pick` gives the tensor of a
/// parameter that is compared (its value, its gradient).
template <class Pick, class Check>
void compare_parts(const moe::Transformer& model,
                   const std::map<std::string, at::Tensor>& reference,
                   const Pick& pick,
                   const Check& check) {
  size_t compared = 0;
  for (const auto& parameter : model.parameters()) {
    const at::Tensor flat = pick(parameter).reshape({-1});
    for (const auto& part : parameter.parts) {
      const at::Tensor& theirs = reference.at(part.name);
      check(part.name, flat.narrow(0, part.offset, theirs.numel()).view(theirs.sizes()), theirs);
      ++compared;
    }
  }
  if (compared != reference.size()) throw std::runtime_error("the reference has other tensors");
}

}  // namespace cohort::tests
