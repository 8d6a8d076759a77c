// The weights of a model on disk under their global names, whatever the kind of its folder. They
// are read piece by piece: beyond where they go, memory for one piece is needed.
#pragma once
#include <ATen/ATen.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/config/config.h"

namespace cohort::rl {

struct WeightInfo {
  std::vector<int64_t> shape;
  at::ScalarType dtype;  ///< As it is given; of blocks of F8_E4M3, which are multiplied out, BF16.
};

class WeightSource {
 public:
  virtual ~WeightSource() = default;

  /// What can be read. Scales of F8_E4M3 weights are not among them.
  const std::map<std::string, WeightInfo>& tensors() const { return tensors_; }
  bool has(const std::string& name) const { return tensors_.contains(name); }
  /// One line each for tensors that cannot be read: a dtype that is none of weights, F8_E4M3
  /// without fitting scales.
  const std::vector<std::string>& faults() const { return faults_; }

  /// Fills `into`, contiguous, of the tensor's shape and any dtype. False when it holds NaN or
  /// infinity. Throws InputError when the file is damaged.
  virtual bool read(const std::string& name, const at::Tensor& into) const = 0;

 protected:
  std::map<std::string, WeightInfo> tensors_;
  std::vector<std::string> faults_;
};

/// Of the model tensors of a checkpoint. `masters`: gives fp32 masters of bf16 weights, where the
/// checkpoint has them, for those weights. Throws InputError as CheckpointReader does.
std::unique_ptr<WeightSource> open_checkpoint_weights(const std::string& folder,
                                                      bool masters = false);

/// Of a Hugging Face folder. Throws InputError with one line for each shard that is missing or
/// broken and for each disagreement with the index.
std::unique_ptr<WeightSource> open_hugging_face_weights(const std::string& folder);

/// All that keeps the source's tensors from being those of a model of this config, one line each
/// (after a thousand, their end): missing, of another shape, extra, unreadable. Copies of tensors
/// (moe::possible_copies) and prediction modules that the config lacks are not extra.
std::vector<std::string> weight_faults(const core::ModelConfig& config, const WeightSource& source);

/// Names of copies among the source's tensors; throws InputError naming each that differs from its
/// original. Reads both.
std::vector<std::string> check_copies(const core::ModelConfig& config, const WeightSource& source);

/// How many multi-token-prediction modules follow the layers: those that the config announces and
/// that have any tensor, and further ones that have eh_proj.
int64_t count_prediction_modules(const core::ModelConfig& config, const WeightSource& source);

/// "PATH: " before every line, as one message.
std::string fault_message(const std::string& path, const std::vector<std::string>& faults);

}  // namespace cohort::rl
