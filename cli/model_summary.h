// What a list of tensors says about a model, told from Hugging Face's names and config.json alone:
// no model is built.
#pragma once
#include <ATen/ATen.h>

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace cohort::cli {

struct TensorInfo {
  std::string name;
  at::ScalarType dtype;
  std::vector<int64_t> shape;

  int64_t numel() const;
};

struct ModelSummary {
  int64_t parameters = 0;
  std::vector<std::pair<std::string, int64_t>> by_kind;  ///< Parameters, in the order of the model.
  std::optional<int64_t> active;  ///< Parameters that one token uses; known with a config.
  std::vector<std::pair<std::string, int64_t>> by_dtype;  ///< Parameters.
};

/// `config` is config.json, or null.
ModelSummary summarise(const std::vector<TensorInfo>& tensors, const nlohmann::json& config);

/// 15,123,456
std::string grouped(int64_t number);
/// 31.2 MB (10^6 bytes)
std::string readable_bytes(int64_t bytes);

}  // namespace cohort::cli
