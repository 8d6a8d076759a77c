// How settings must fit together. Type and range of each alone are in core/config/fields.cpp.
#pragma once
#include <initializer_list>
#include <map>
#include <string>

#include "core/config/config.h"

namespace cohort::core {

/// Where each key got its value, so that a message about several keys points at the one to change.
class Origins {
 public:
  /// `name`: the file. `prefix` is cut from keys in messages ("model." for a config.json).
  explicit Origins(std::string name, std::string prefix = "");
  /// `text`: "tiny.yaml:12: model.num_experts".
  void record(const std::string& key, std::string text, bool is_override);
  bool given(const std::string& key) const { return places_.contains(key); }
  /// The place of the first of `keys` (which concern one check) that an override set, else of the
  /// first that the file sets, else the file and the first key.
  std::string blame(std::initializer_list<std::string> keys) const;

 private:
  struct PlaceOf {
    std::string text;
    bool is_override;
  };
  std::string name_, prefix_;
  std::map<std::string, PlaceOf> places_;
};

/// Sets what `model_type` decides: attention, router and norms of that architecture (a Qwen2 has
/// GQA with biases and no experts, ...). Sizes are left alone.
void fix_model_type(ModelConfig& model);

/// Throws InputError with one line when the model cannot be: sizes that do not divide, more experts
/// a token than there are, features that `model_type` does not have.
void validate_model(const ModelConfig& model, const Origins& origins);

/// validate_model, and everything else that can be checked without ranks or files. What depends on
/// the number of ranks is checked by distributed/mesh.h.
void validate(const Config& config, const Origins& origins);

}  // namespace cohort::core
