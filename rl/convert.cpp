#include "rl/convert.h"

#include <algorithm>
#include <filesystem>

#include "core/base/error.h"
#include "core/config/hf_config.h"
#include "core/config/parse.h"
#include "core/io/file.h"
#include "core/io/safetensors.h"
#include "core/io/strict_json.h"
#include "core/io/xxh3.h"
#include "distributed/checkpoint_folder.h"
#include "distributed/checkpoint_manifest.h"
#include "moe/run_folder.h"
#include "moe/tensor_list.h"
#include "moe/training_run.h"
#include "rl/model_folder.h"

namespace cohort::rl {
namespace {

namespace fs = std::filesystem;
using core::SafetensorsSpec;
using nlohmann::ordered_json;
using Shards = std::vector<std::vector<SafetensorsSpec>>;

int64_t bytes_of(const SafetensorsSpec& spec) {
  return c10::multiply_integers(spec.shape) * static_cast<int64_t>(c10::elementSize(spec.dtype));
}

/// What is written, in the order of the model, whatever the source's own.
std::vector<SafetensorsSpec> plan(const ModelFolder& folder, const ConvertOptions& options) {
  std::vector<SafetensorsSpec> specs;
  const auto dtype_of = [&](const std::string& name, bool is_router_bias) {
    if (!options.dtype) return folder.weights->tensors().at(name).dtype;
    return is_router_bias && *options.dtype == at::kBFloat16 ? at::kFloat : *options.dtype;
  };
  moe::for_each_tensor(folder.config, [&](const moe::TensorSpec& spec) {
    specs.push_back({spec.name, dtype_of(spec.name, spec.is_router_bias), spec.shape});
    return true;
  });
  for (const std::string& name : check_copies(folder.config, *folder.weights))
    specs.push_back({name, dtype_of(name, false), folder.weights->tensors().at(name).shape});
  return specs;
}

Shards into_shards(const std::vector<SafetensorsSpec>& specs, int64_t shard_bytes) {
  Shards shards(1);
  int64_t bytes = 0;
  for (const auto& spec : specs) {
    if (!shards.back().empty() && bytes + bytes_of(spec) > shard_bytes) {
      shards.emplace_back();
      bytes = 0;
    }
    shards.back().push_back(spec);
    bytes += bytes_of(spec);
  }
  // Wide elements first, as the reference writes: each tensor then stands at a multiple of its own.
  for (auto& shard : shards)
    std::stable_sort(shard.begin(), shard.end(), [](const auto& a, const auto& b) {
      return c10::elementSize(a.dtype) > c10::elementSize(b.dtype);
    });
  return shards;
}

const char* torch_name(at::ScalarType dtype) {
  switch (dtype) {
    case at::kBFloat16:
      return "bfloat16";
    case at::kHalf:
      return "float16";
    case at::kDouble:
      return "float64";
    default:
      return "float32";
  }
}

/// A folder under a temporary name, with the manifest of what is in it.
class Output {
 public:
  explicit Output(const std::string& destination)
      : destination_(fs::absolute(destination).lexically_normal()) {
    if (destination_.filename().empty()) destination_ = destination_.parent_path();
    std::error_code error;
    const bool exists = fs::exists(destination_, error);
    COHORT_CHECK_INPUT(!exists || fs::is_directory(destination_, error),
                       "{}: is a file; want a folder that is new or empty",
                       destination);
    COHORT_CHECK_INPUT(!exists || fs::is_empty(destination_, error),
                       "{}: is not empty; want a folder that is new or empty",
                       destination);
    temporary_ = destination_.parent_path() / ("." + destination_.filename().string() + ".partial");
    fs::remove_all(temporary_, error);  // of a conversion that was killed
    fs::create_directories(temporary_, error);
    COHORT_CHECK_INPUT(!error, "{} cannot be made: {}", temporary_.string(), error.message());
  }
  ~Output() {
    std::error_code ignored;
    if (!done_) fs::remove_all(temporary_, ignored);
  }
  Output(const Output&) = delete;

  std::string path(const std::string& name) const { return (temporary_ / name).string(); }

  void text(const std::string& name, const std::string& content) {
    core::write_file(path(name), content);
    const auto size = static_cast<int64_t>(content.size());
    manifest.files[name] = {size, size, core::xxh3_hex(content.data(), content.size())};
  }

  void shard(const std::string& name,
             const std::vector<SafetensorsSpec>& specs,
             const std::function<at::Tensor(size_t)>& tensor) {
    const auto written = core::write_safetensors(path(name), specs, tensor, {{"format", "pt"}});
    manifest.files[name] = {written.file_bytes, written.header_bytes, written.header_xxh3};
    for (size_t i = 0; i < specs.size(); ++i)
      manifest.tensors[specs[i].name] = {
          specs[i].dtype,
          specs[i].shape,
          {{name, 0, c10::multiply_integers(specs[i].shape), written.at[i], written.xxh3[i]}}};
  }

  void commit() {
    core::fsync_folder(temporary_.string());
    core::rename_path(temporary_.string(), destination_.string());
    core::fsync_folder(destination_.parent_path().string());
    done_ = true;
  }

  distributed::Manifest manifest;

 private:
  fs::path destination_, temporary_;
  bool done_ = false;
};

void write_shards(const ModelFolder& folder, const Shards& shards, bool numbered, Output& out) {
  std::vector<std::string> faults;
  ordered_json index{{"metadata", {{"total_size", 0}}}, {"weight_map", ordered_json::object()}};
  int64_t total = 0;
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name =
        numbered ? fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size())
                 : "model.safetensors";
    out.shard(name, shards[i], [&](size_t j) {
      const auto& spec = shards[i][j];
      const at::Tensor value = at::empty(spec.shape, at::dtype(spec.dtype));
      if (!folder.weights->read(spec.name, value))
        faults.push_back(spec.name + " holds NaN or infinity");
      return value;
    });
  }
  if (!faults.empty()) throw InputError(fault_message(folder.path, faults));
  if (!numbered) return;
  std::string map;
  for (const auto& [name, tensor] : out.manifest.tensors) {
    total += tensor.bytes(tensor.slices.front());
    map += fmt::format("{}\n  {}: {}",
                       map.empty() ? "" : ",",
                       ordered_json(name).dump(),
                       ordered_json(tensor.slices.front().file).dump());
  }
  out.text(
      "model.safetensors.index.json",
      fmt::format("{{\n \"metadata\": {{\"total_size\": {}}},\n \"weight_map\": {{{}\n }}\n}}\n",
                  total,
                  map));
}

/// What Hugging Face's generate reads.
std::string generation_config(const core::ModelConfig& config) {
  const ordered_json hf = core::model_config_to_hf(config);
  ordered_json out{{"_from_model_config", true}};
  for (const char* name : {"bos_token_id", "eos_token_id"})
    if (!hf[name].is_null()) out[name] = hf[name];
  return out.dump(2) + "\n";
}

/// Without it transformers guesses the class of a tokenizer from the model's type.
std::string tokenizer_config(const core::ModelConfig& config, const core::Tokenizer& tokenizer) {
  ordered_json out{{"tokenizer_class", "PreTrainedTokenizerFast"},
                   {"clean_up_tokenization_spaces", false},
                   {"model_max_length", config.max_position_embeddings}};
  const auto put = [&](const char* name, int64_t id) {
    if (id >= 0 && id < tokenizer.vocab_size())
      out[name] = tokenizer.token_bytes(static_cast<int32_t>(id));
  };
  put("bos_token", config.bos_token_id);
  put("eos_token", config.eos_token_id);
  return out.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

void write_texts(const ModelFolder& folder, at::ScalarType dtype, Output& out) {
  ordered_json config;
  const ordered_json fields = core::model_config_to_hf(folder.config);
  for (const auto& [name, value] : fields.items()) {
    config[name] = value;
    if (name == "model_type") config["torch_dtype"] = torch_name(dtype);
  }
  out.text("config.json", config.dump(2) + "\n");
  for (const auto& [name, content] : moe::carried_files(folder.path)) out.text(name, content);
  if (!out.manifest.files.contains("generation_config.json"))
    out.text("generation_config.json", generation_config(folder.config));
  const std::string tokenizer = moe::file_text(folder.tokenizer_path());
  if (tokenizer.empty()) return;
  out.text("tokenizer.json", tokenizer);
  if (!out.manifest.files.contains("tokenizer_config.json"))
    out.text("tokenizer_config.json", tokenizer_config(folder.config, folder.tokenizer()));
}

void write_manifest(const ModelFolder& folder, Output& out) {
  core::Config config;
  config.model = folder.config;
  auto& manifest = out.manifest;
  manifest.mesh = {{"world", 1}, {"dp", 1}, {"ep", 1}, {"pp", 1}};
  manifest.state = {{"kind", moe::kWeightsOnly}, {"step", 0}, {"config", core::to_yaml(config)}};
  check_consistent(manifest);
  core::write_file(out.path(distributed::kManifestName), format_manifest(manifest));
}

}  // namespace

ConvertReport convert_model(const std::string& source,
                            const std::string& destination,
                            const ConvertOptions& options) {
  Output out(destination);
  ModelFolder folder = open_model_folder(source);
  if (folder.kind == ModelFolder::Kind::kCheckpoint && options.dtype == at::kFloat)
    folder.weights = open_checkpoint_weights(folder.path, true);
  const auto specs = plan(folder, options);
  const Shards shards = into_shards(specs, options.shard_bytes);
  const bool checkpoint = options.to == ConvertOptions::To::kCheckpoint;
  write_shards(folder, shards, checkpoint || shards.size() > 1, out);
  write_texts(folder, specs.front().dtype, out);
  if (checkpoint) write_manifest(folder, out);
  out.commit();
  ConvertReport report{static_cast<int64_t>(specs.size()), 0, static_cast<int64_t>(shards.size())};
  for (const auto& spec : specs) report.bytes += bytes_of(spec);
  return report;
}

}  // namespace cohort::rl
