// The model that a KL term holds the policy to: weights of an earlier step, without gradients or
// optimizer. It exists only while rl.beta is above 0.
#pragma once
#include <memory>

#include "distributed/checkpoint.h"
#include "distributed/mesh.h"
#include "moe/transformer.h"

namespace cohort::rl {

class ReferenceModel {
 public:
  /// A copy of `policy`.
  ReferenceModel(const moe::Transformer& policy, const distributed::Mesh& mesh);

  moe::Transformer& model() { return model_; }
  /// Becomes `policy` as it is now.
  void refresh(const moe::Transformer& policy);
  /// This rank's share of it, among the tensors that are no part of the trained model.
  void add_to(distributed::CheckpointContent& content) const;
  /// Takes the reference from a checkpoint. false: there is none in it (beta was 0).
  bool load(const distributed::CheckpointReader& reader);

 private:
  distributed::Mesh mesh_;
  moe::Transformer model_;
};

}  // namespace cohort::rl
