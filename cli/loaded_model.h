// A model ready for use by a subcommand: weights on this rank, tokenizer, ranks.
#pragma once
#include <CLI/CLI.hpp>
#include <string>

#include "core/tokenizer/tokenizer.h"
#include "distributed/mesh.h"
#include "moe/transformer.h"
#include "rl/model_folder.h"

namespace cohort::cli {

/// Which model, and how.
struct ModelOptions {
  std::string path;
  int ep = 1;
  std::string precision = "fp32";
  std::string device = "auto";

  /// --model, --ep, --precision, --device.
  void add_to(CLI::App& app);
};

/// Reads the model over all ranks of the job (dp = world). Its multi-token-prediction modules are
/// left out: generation has no use for them. Throws InputError for a folder that is no model, one
/// without a tokenizer, or an ep that does not fit.
class LoadedModel {
 public:
  explicit LoadedModel(const ModelOptions& options);

  distributed::Mesh mesh;
  rl::ModelFolder folder;
  core::Tokenizer tokenizer;
  moe::Transformer model;
};

}  // namespace cohort::cli
