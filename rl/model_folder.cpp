#include "rl/model_folder.h"

#include <charconv>
#include <filesystem>
#include <functional>
#include <optional>
#include <set>

#include "core/base/error.h"
#include "core/base/log.h"
#include "core/config/hf_config.h"
#include "core/io/safetensors.h"
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

/// The tensors of a folder, whatever its kind.
struct Weights {
  std::vector<std::string> names;
  std::function<bool(const std::string&)> has;
  std::function<std::vector<int64_t>(const std::string&)> shape;
  std::function<at::Tensor(const std::string&)> tensor;
};

Weights open_checkpoint(const std::string& path) {
  auto reader = std::make_shared<distributed::CheckpointReader>(path);
  return {reader->names(),
          [reader](const auto& name) { return reader->has(name); },
          [reader](const auto& name) { return reader->shape(name); },
          [reader](const auto& name) { return reader->tensor(name); }};
}

Weights open_hugging_face(const std::string& path) {
  auto folder = std::make_shared<core::SafetensorsFolder>(core::open_safetensors_folder(path));
  COHORT_CHECK_INPUT(folder->faults.empty(), "{}", fmt::join(folder->faults, "; "));
  Weights weights;
  for (const auto& [name, file_idx] : folder->file_of) {
    const auto dtype = folder->files[file_idx].entries().at(name).dtype;
    COHORT_CHECK_INPUT(
        dtype == at::kFloat || dtype == at::kDouble || dtype == at::kHalf || dtype == at::kBFloat16,
        "{}: tensor {} is {}; want weights in F32, F16 or BF16 (quantised ones have to be "
        "converted first)",
        path,
        name,
        core::safetensors_dtype_name(dtype));
    weights.names.push_back(name);
  }
  const auto file = [folder](const std::string& name) -> const core::SafetensorsFile& {
    return folder->files[folder->file_of.at(name)];
  };
  weights.has = [folder](const auto& name) { return folder->file_of.contains(name); };
  weights.shape = [file](const auto& name) { return file(name).entries().at(name).shape; };
  weights.tensor = [file](const auto& name) { return file(name).tensor(name); };
  return weights;
}

Weights open_weights(const ModelFolder& folder) {
  return folder.kind == ModelFolder::Kind::kCheckpoint ? open_checkpoint(folder.path)
                                                       : open_hugging_face(folder.path);
}

/// N of "model.layers.N.rest", or -1.
int64_t layer_of(const std::string& name) {
  constexpr std::string_view kPrefix = "model.layers.";
  if (!name.starts_with(kPrefix)) return -1;
  int64_t layer = -1;
  std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), layer);
  return layer;
}

/// Layers that are multi-token-prediction modules: they alone have eh_proj.
std::set<int64_t> prediction_layers(const std::vector<std::string>& names) {
  std::set<int64_t> layers;
  for (const std::string& name : names)
    if (name.ends_with(".eh_proj.weight")) layers.insert(layer_of(name));
  return layers;
}

/// A tensor of the model under its global name, as a view of its storage.
struct Destination {
  std::string name;
  at::Tensor view;
};

std::vector<Destination> destinations(moe::Transformer& model) {
  std::vector<Destination> all;
  for (const auto& parameter : model.parameters())
    for (const auto& part : parameter.parts) {
      const at::Tensor flat = parameter.value.detach().view({-1});
      all.push_back(
          {part.name,
           flat.narrow(0, part.offset, c10::multiply_integers(part.shape)).view(part.shape)});
    }
  for (const auto& buffer : model.buffers()) all.push_back({buffer.name, buffer.value});
  return all;
}

/// All that keeps the folder's weights from being the model's.
std::vector<std::string> faults_of(const std::vector<Destination>& wanted,
                                   const std::set<int64_t>& missing_modules,
                                   const std::set<int64_t>& modules,
                                   const Weights& weights,
                                   int64_t num_layers) {
  std::vector<std::string> faults;
  for (const auto& [name, view] : wanted) {
    if (missing_modules.contains(layer_of(name))) continue;
    if (!weights.has(name))
      faults.push_back(name + " is missing");
    else if (const auto shape = weights.shape(name); view.sizes() != at::IntArrayRef(shape))
      faults.push_back(fmt::format(
          "{} is [{}], not [{}]", name, fmt::join(shape, ", "), fmt::join(view.sizes(), ", ")));
  }
  std::set<int64_t> surplus;
  for (const std::string& name : weights.names)
    if (layer_of(name) >= num_layers && !modules.contains(layer_of(name)))
      surplus.insert(layer_of(name));
  for (const int64_t layer : surplus)
    faults.push_back(fmt::format("model.layers.{} is none of the model's {}", layer, num_layers));
  return faults;
}

std::string list_of(const std::vector<std::string>& faults) {
  constexpr size_t kMost = 8;
  const auto end = faults.begin() + static_cast<std::ptrdiff_t>(std::min(faults.size(), kMost));
  const std::string text = fmt::format("{}", fmt::join(faults.begin(), end, ", "));
  return faults.size() > kMost ? fmt::format("{} and {} more", text, faults.size() - kMost) : text;
}

using NewestGood = std::function<std::optional<std::string>(const std::string&)>;

/// What stands at `path`, without its config.
ModelFolder find_weights(const std::string& path, const NewestGood& newest_good) {
  std::error_code ignored;
  COHORT_CHECK_INPUT(fs::exists(path, ignored), "{}: no such folder; {}", path, kWanted);
  COHORT_CHECK_INPUT(fs::is_directory(path, ignored), "{}: is a file; {}", path, kWanted);
  if (has(path, "manifest.json")) return {path, ModelFolder::Kind::kCheckpoint, {}};
  if (has(path, "checkpoints")) {
    const auto newest = newest_good(path + "/checkpoints");
    COHORT_CHECK_INPUT(newest, "{}: is a run that holds no checkpoint yet; {}", path, kWanted);
    return {*newest, ModelFolder::Kind::kCheckpoint, {}};
  }
  const bool config = has(path, "config.json"), weights = has_weights(path);
  COHORT_CHECK_INPUT(config || weights, "{}: holds no model; {}", path, kWanted);
  COHORT_CHECK_INPUT(weights, "{}: has config.json but no weights; {}", path, kWanted);
  COHORT_CHECK_INPUT(config, "{}: has weights but no config.json; {}", path, kWanted);
  return {path, ModelFolder::Kind::kHuggingFace, {}};
}

ModelFolder open(const std::string& path, const NewestGood& newest_good) {
  ModelFolder folder = find_weights(path, newest_good);
  folder.config = core::read_hf_config(folder.path);
  if (folder.config.num_nextn_predict_layers > 0 &&
      prediction_layers(open_weights(folder).names).empty())
    folder.config.num_nextn_predict_layers = 0;
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
  const Weights weights = open_weights(folder);
  const std::vector<Destination> wanted = destinations(model);
  const int64_t layers = model.config().num_hidden_layers;
  const std::set<int64_t> modules = prediction_layers(weights.names);
  std::set<int64_t> missing_modules;
  for (int64_t k = 0; k < model.config().num_nextn_predict_layers; ++k)
    if (!modules.contains(layers + k)) missing_modules.insert(layers + k);
  const auto faults = faults_of(wanted, missing_modules, modules, weights, layers);
  COHORT_CHECK_INPUT(faults.empty(),
                     "{}: its weights are not those of the model: {}; want a model section that "
                     "fits its config.json",
                     folder.path,
                     list_of(faults));
  if (!missing_modules.empty())
    spdlog::warn("{}: has no weights for {} multi-token-prediction module(s): they start anew",
                 folder.path,
                 missing_modules.size());
  for (const auto& [name, view] : wanted)
    if (!missing_modules.contains(layer_of(name))) view.copy_(weights.tensor(name));
}

}  // namespace cohort::rl
