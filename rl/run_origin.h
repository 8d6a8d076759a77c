// Where a run that teaches a trained model starts: GRPO and supervised fine-tuning.
#pragma once
#include <optional>
#include <string>

#include "core/config/config.h"
#include "core/tokenizer/tokenizer.h"
#include "distributed/mesh.h"
#include "moe/run_folder.h"
#include "moe/training_run.h"
#include "rl/model_folder.h"

namespace cohort::rl {

/// A checkpoint of the run's own, or the model that run.model names.
struct RunOrigin {
  moe::RunFolder files;  ///< With the tokenizer's text.
  std::optional<ModelFolder> model;
  std::string tokenizer_path;
  std::string folder;  ///< Where the chat template stands, if there is one.

  /// None where the run goes on from a checkpoint of its own.
  moe::StartingWeights weights() const;
  /// Throws InputError when it has more tokens than the model.
  core::Tokenizer tokenizer(const core::ModelConfig& model) const;
};

/// Opens run.dir; the tokenizer is data.tokenizer, else the one beside the weights. `what` names
/// the method in messages. `may_be_new`: without run.model the run starts from new weights, if
/// data.tokenizer is given, beside which the files stand that travel along. Throws InputError when
/// there is nothing to start from. Collective.
RunOrigin find_origin(const core::Config& config,
                      const distributed::Mesh& mesh,
                      bool resume,
                      const std::string& what,
                      bool may_be_new = false);

}  // namespace cohort::rl
