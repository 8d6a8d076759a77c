// What the optimizer, the gradient buckets and the checkpoint know of a model: a flat list of its
// parameters.
#pragma once
#include <ATen/ATen.h>

#include <string>
#include <vector>

namespace cohort::core {

/// One tensor that has a name of its own in a checkpoint. A stacked parameter (the experts of a
/// layer) holds several.
struct ParameterPart {
  std::string name;  ///< Hugging Face's name, e.g. "model.layers.3.mlp.experts.7.down_proj.weight".
  int64_t offset;  ///< First element within the flattened parameter; the part is contiguous there,
                   ///< row-major.
  std::vector<int64_t> shape;  ///< Shape under that name.
};

/// Which ranks hold the same values.
enum class Replicas {
  kData,    ///< Every rank of the dp axis.
  kExpert,  ///< Ranks of the edp axis (those with the same ep coordinate): routed experts.
};

/// A trainable leaf tensor. `value` shares its storage with the layer that uses it; whoever moves
/// the storage does it with `value.set_data(...)`, which every copy of the handle sees.
struct Parameter {
  at::Tensor value;
  std::vector<ParameterPart> parts;  ///< In order of offset, covering the whole parameter.
  Replicas replicas = Replicas::kData;
  bool is_embedding = false;  ///< Embedding or output head: a matrix that Muon leaves to AdamW.
};

using ParameterList = std::vector<Parameter>;

/// A parameter of one part.
inline Parameter named_parameter(std::string name, at::Tensor value) {
  auto shape = value.sizes().vec();
  return {std::move(value), {{std::move(name), 0, std::move(shape)}}, Replicas::kData, false};
}

/// Saved with the weights but not trained: the router biases.
struct Buffer {
  std::string name;
  at::Tensor value;
};

}  // namespace cohort::core
