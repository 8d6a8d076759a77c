#include "rl/model_folder.h"

#include <filesystem>
#include <functional>
#include <optional>

#include "core/base/error.h"
#include "core/base/log.h"
#include "core/config/hf_config.h"
#include "distributed/checkpoint.h"

namespace cohort::rl {
namespace {

namespace fs = std::filesystem;

constexpr const char* kWanted =
    "want a checkpoint (manifest.json), a run (checkpoints/) or a Hugging Face model (config.json "
    "and model*.safetensors)";

bool has(const std::string& folder, const char* name) {
  std::error_code ignored;
  return fs::exists(fs::path(folder) / name, ignored);
}

bool has_weights(const std::string& folder) {
  std::error_code ignored;
  if (has(folder, "model.safetensors.index.json")) return true;
  for (const auto& entry : fs::directory_iterator(folder, ignored))
    if (entry.path().extension() == ".safetensors" &&
        entry.path().filename().string().starts_with("model"))
      return true;
  return false;
}

using NewestGood = std::function<std::optional<std::string>(const std::string&)>;

/// What stands at `path`, without its config.
ModelFolder find_weights(const std::string& path, const NewestGood& newest_good) {
  std::error_code ignored;
  COHORT_CHECK_INPUT(fs::exists(path, ignored), "{}: no such folder; {}", path, kWanted);
  COHORT_CHECK_INPUT(fs::is_directory(path, ignored), "{}: is a file; {}", path, kWanted);
  if (has(path, "manifest.json")) return {path, ModelFolder::Kind::kCheckpoint, {}, nullptr};
  if (has(path, "checkpoints")) {
    const auto newest = newest_good(path + "/checkpoints");
    COHORT_CHECK_INPUT(newest, "{}: is a run that holds no checkpoint yet; {}", path, kWanted);
    return {*newest, ModelFolder::Kind::kCheckpoint, {}, nullptr};
  }
  const bool config = has(path, "config.json"), weights = has_weights(path);
  COHORT_CHECK_INPUT(config || weights, "{}: holds no model; {}", path, kWanted);
  COHORT_CHECK_INPUT(weights, "{}: has config.json but no weights; {}", path, kWanted);
  COHORT_CHECK_INPUT(config, "{}: has weights but no config.json; {}", path, kWanted);
  return {path, ModelFolder::Kind::kHuggingFace, {}, nullptr};
}

ModelFolder open(const std::string& path, const NewestGood& newest_good) {
  ModelFolder folder = find_weights(path, newest_good);
  folder.config = core::read_hf_config(folder.path);
  folder.weights = folder.kind == ModelFolder::Kind::kCheckpoint
                       ? open_checkpoint_weights(folder.path)
                       : open_hugging_face_weights(folder.path);
  folder.config.num_nextn_predict_layers = count_prediction_modules(folder.config, *folder.weights);
  const auto faults = weight_faults(folder.config, *folder.weights);
  if (!faults.empty()) throw InputError(fault_message(folder.path, faults));
  return folder;
}

}  // namespace

core::Tokenizer ModelFolder::tokenizer() const {
  COHORT_CHECK_INPUT(has(path, "tokenizer.json"),
                     "{}: has no tokenizer.json; want the one that the model was trained with",
                     path);
  auto tokenizer = core::Tokenizer::load(tokenizer_path());
  COHORT_CHECK_INPUT(tokenizer.vocab_size() <= config.vocab_size,
                     "{}: has {} tokens, more than the vocab_size {} of the model; want its own "
                     "tokenizer",
                     tokenizer_path(),
                     tokenizer.vocab_size(),
                     config.vocab_size);
  return tokenizer;
}

ModelFolder open_model_folder(const std::string& path) {
  return open(path, [](const std::string& checkpoints) {
    return distributed::newest_good_checkpoint(checkpoints, distributed::make_local_mesh());
  });
}

ModelFolder open_model_folder(const std::string& path, const distributed::Mesh& mesh) {
  return open(path, [&mesh](const std::string& checkpoints) {
    return distributed::newest_good_checkpoint(checkpoints, mesh);
  });
}

void load_model_weights(const ModelFolder& folder, moe::Transformer& model) {
  at::NoGradGuard no_grad;
  const WeightSource& source = *folder.weights;
  const core::ModelConfig& config = model.config();
  core::ModelConfig common = config;  // without modules that the folder lacks
  common.num_nextn_predict_layers =
      std::min(config.num_nextn_predict_layers, folder.config.num_nextn_predict_layers);
  std::vector<std::string> faults = weight_faults(common, source);
  if (!faults.empty()) throw InputError(fault_message(folder.path, faults));
  const int64_t missing_modules = config.num_nextn_predict_layers - common.num_nextn_predict_layers;
  if (missing_modules > 0)
    spdlog::warn("{}: has no weights for {} multi-token-prediction module(s): they start anew",
                 folder.path,
                 missing_modules);
  const auto read = [&](const std::string& name, const at::Tensor& into) {
    if (source.has(name) && !source.read(name, into))
      faults.push_back(name + " holds NaN or infinity");
  };
  for (const auto& parameter : model.parameters())
    for (const auto& part : parameter.parts)
      read(part.name,
           parameter.value.detach()
               .view({-1})
               .narrow(0, part.offset, c10::multiply_integers(part.shape))
               .view(part.shape));
  for (const auto& buffer : model.buffers()) read(buffer.name, buffer.value);
  if (!faults.empty()) throw InputError(fault_message(folder.path, faults));
}

}  // namespace cohort::rl
