// A model on disk, to be used or to start from: a checkpoint of Cohort's, the run that wrote it, or
// a Hugging Face model.
#pragma once
#include <memory>
#include <string>

#include "core/config/config.h"
#include "core/tokenizer/tokenizer.h"
#include "distributed/mesh.h"
#include "moe/transformer.h"
#include "rl/weight_source.h"

namespace cohort::rl {

struct ModelFolder {
  enum class Kind { kCheckpoint, kHuggingFace };

  std::string path;  ///< Of the weights: of a run, its newest good checkpoint.
  Kind kind = Kind::kHuggingFace;
  /// What config.json says. num_nextn_predict_layers is the number of prediction modules that the
  /// folder holds: models that went through other tools often lack them.
  core::ModelConfig config;
  /// Opened, and checked against `config`; nothing of them is in memory.
  std::shared_ptr<const WeightSource> weights;

  std::string tokenizer_path() const { return path + "/tokenizer.json"; }
  /// Throws InputError when there is none, or when it has tokens that the model lacks.
  core::Tokenizer tokenizer() const;
};

/// `path`: a folder with manifest.json (a checkpoint), with checkpoints/ (a run: the newest that
/// verifies is taken), or with config.json and model*.safetensors. Weights are not read, but names,
/// shapes and dtypes of all of them are checked. Throws InputError saying what was found and what
/// is wanted, with a line for every shard, tensor or index entry that is not as it should be.
ModelFolder open_model_folder(const std::string& path);
/// The same by all ranks together, which share the verifying. Collective over mesh.world.
ModelFolder open_model_folder(const std::string& path, const distributed::Mesh& mesh);

/// 16 hexadecimal digits that tell these weights from others: a hash of config.json and the
/// manifest, which holds hashes of every tensor, or of config.json and every byte of the shards,
/// which the ranks share. The same on any mesh. Collective over mesh.world.
std::string weights_xxh3(const ModelFolder& folder, const distributed::Mesh& mesh);

/// Fills every parameter and buffer that this rank holds, piece by piece and in the model's dtype;
/// nothing else is read. Of a multi-token-prediction module that the folder lacks the drawn weights
/// stay, with a warning; modules that the model lacks are passed over. Throws InputError with a
/// line for every tensor that is missing or has another shape, or holds NaN or infinity. Not
/// collective.
void load_model_weights(const ModelFolder& folder, moe::Transformer& model);

}  // namespace cohort::rl
