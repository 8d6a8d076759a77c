// A model ready for use by a subcommand: weights on this rank, tokenizer, ranks.
#pragma once
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "core/tokenizer/tokenizer.h"
#include "distributed/mesh.h"
#include "moe/quantize.h"
#include "moe/transformer.h"
#include "rl/model_folder.h"

namespace cohort::cli {

/// Which model, and how.
struct ModelOptions {
  std::string path;
  int ep = 1;
  std::string precision = "fp32";
  std::string device = "auto";
  std::string quantize = "none";
  int64_t quantize_group = 128;

  /// --model, --ep, --precision, --device, --quantize, --quantize-group.
  void add_to(CLI::App& app);
  /// What --quantize asks for; nothing for none.
  std::optional<core::QuantizeOptions> quantization() const;
};

/// Reads the model over all ranks of the job (dp = world). Its multi-token-prediction modules are
/// left out: generation has no use for them. Where asked for, the weights are quantised once they
/// are read. Throws InputError for a folder that is no model, one without a tokenizer, or an ep
/// that does not fit.
class LoadedModel {
 public:
  explicit LoadedModel(const ModelOptions& options);

  distributed::Mesh mesh;
  rl::ModelFolder folder;
  core::Tokenizer tokenizer;
  moe::Transformer model;
  std::optional<moe::Quantization> quantization;  ///< What --quantize did.
};

/// "int4, groups of 128: weights of 51.2 MB in 8.1 MB".
std::string quantization_text(const ModelOptions& options, const moe::Quantization& quantization);

/// Adds quantize, quantize_group, weight_bytes and weight_bytes_unquantized (of this rank) to a
/// command's JSON, where the model is quantised.
void add_quantization(const ModelOptions& options,
                      const std::optional<moe::Quantization>& quantization,
                      nlohmann::ordered_json& json);

/// Adds parameters and active_parameters (of a token; prediction modules count) to a command's
/// JSON.
void add_parameters(const rl::ModelFolder& folder, nlohmann::ordered_json& json);

}  // namespace cohort::cli
