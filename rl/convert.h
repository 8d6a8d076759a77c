// From any model folder to a Hugging Face folder, or to a checkpoint that holds weights alone.
#pragma once
#include <ATen/ATen.h>

#include <cstdint>
#include <optional>
#include <string>

namespace cohort::rl {

struct ConvertOptions {
  enum class To { kHuggingFace, kCheckpoint };
  To to = To::kHuggingFace;
  /// Of the weights; the router's bias stays fp32 in a bf16 model. Not given: each tensor keeps its
  /// own, so that what was imported is exported bit for bit. With kFloat a checkpoint's fp32
  /// masters are taken where it has them.
  std::optional<at::ScalarType> dtype;
  int64_t shard_bytes = 5'000'000'000;  ///< Of data in a file at most, but one tensor at least.
};

struct ConvertReport {
  int64_t tensors = 0, bytes = 0, files = 0;
};

/// Writes `destination`, tensor by tensor, under another name in its parent, and renames it when
/// every byte is on the disk: weights under the reference's names with an index, config.json,
/// generation_config.json, tokenizer and chat template as far as `source` has them; for
/// kCheckpoint a manifest.json too. The result does not depend on the mesh that wrote the source.
/// Memory: one tensor. Throws InputError when `destination` exists and is not empty, and as
/// open_model_folder and load_model_weights do (NaN, ...); then nothing is left behind.
ConvertReport convert_model(const std::string& source,
                            const std::string& destination,
                            const ConvertOptions& options);

}  // namespace cohort::rl
