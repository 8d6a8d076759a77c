#include "cli/loaded_model.h"

#include "cli/model_summary.h"
#include "core/base/error.h"
#include "core/io/strict_json.h"
#include "distributed/device_choice.h"

namespace cohort::cli {
namespace {

rl::ModelFolder open_folder(const ModelOptions& options, const distributed::Mesh& mesh) {
  rl::ModelFolder folder = rl::open_model_folder(options.path, mesh);
  folder.config.num_nextn_predict_layers = 0;
  const int64_t experts = folder.config.n_routed_experts;
  COHORT_CHECK_INPUT(options.ep == 1 || (experts > 0 && experts % options.ep == 0),
                     "--ep: {} experts cannot be spread evenly over {} ranks; want an ep that "
                     "divides them",
                     experts,
                     options.ep);
  return folder;
}

distributed::Mesh make_mesh(const ModelOptions& options) {
  const bool quantised = options.quantize != "none";
  COHORT_CHECK_INPUT(!quantised || options.device != "cuda",
                     "--quantize {}: such weights are multiplied on the CPU; should be none with "
                     "--device cuda",
                     options.quantize);
  distributed::set_run_device(distributed::choose_device(quantised ? "cpu" : options.device));
  return distributed::make_mesh({0, options.ep, 1});
}

/// All weights are read: none needs to be drawn first.
core::ModelConfig undrawn(core::ModelConfig config) {
  config.initializer_range = 0;
  return config;
}

}  // namespace

void ModelOptions::add_to(CLI::App& app) {
  app.add_option("--model", path, "Folder of a checkpoint, a run or a Hugging Face model")
      ->required();
  app.add_option("--ep", ep, "Ranks over which the experts are spread (under mpirun)")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--precision", precision, "Of weights and activations: fp32 or bf16")
      ->capture_default_str()
      ->check(CLI::IsMember({"fp32", "bf16"}));
  app.add_option("--device", device, "cpu, cuda, or auto: cuda when binary and machine have it")
      ->capture_default_str()
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}));
  app.add_option("--quantize",
                 quantize,
                 "Hold weights in 8 or 4 bits: none, int8 or int4; embedding and head get 8")
      ->capture_default_str()
      ->check(CLI::IsMember({"none", "int8", "int4"}));
  app.add_option("--quantize-group", quantize_group, "Inputs of a row that share a scale")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
}

std::optional<core::QuantizeOptions> ModelOptions::quantization() const {
  if (quantize == "none") return std::nullopt;
  return core::QuantizeOptions{quantize == "int8" ? 8 : 4, quantize_group};
}

std::string quantization_text(const ModelOptions& options, const moe::Quantization& quantization) {
  return fmt::format("{}, groups of {}: weights of {:.2f} MB in {:.2f} MB",
                     options.quantize,
                     options.quantize_group,
                     static_cast<double>(quantization.bytes_before) / 1e6,
                     static_cast<double>(quantization.bytes_after) / 1e6);
}

void add_quantization(const ModelOptions& options,
                      const std::optional<moe::Quantization>& quantization,
                      nlohmann::ordered_json& json) {
  if (!quantization) return;
  json["quantize"] = options.quantize;
  json["quantize_group"] = options.quantize_group;
  json["weight_bytes"] = quantization->bytes_after;
  json["weight_bytes_unquantized"] = quantization->bytes_before;
}

LoadedModel::LoadedModel(const ModelOptions& options)
    : mesh(make_mesh(options)),
      folder(open_folder(options, mesh)),
      tokenizer(folder.tokenizer()),
      model(undrawn(folder.config),
            mesh.ep,
            1,
            options.precision == "bf16" ? at::kBFloat16 : at::kFloat,
            mesh.device) {
  rl::load_model_weights(folder, model);
  if (const auto how = options.quantization()) quantization = moe::quantize(model, *how);
}

void add_parameters(const rl::ModelFolder& folder, nlohmann::ordered_json& json) {
  std::vector<TensorInfo> tensors;
  for (const auto& [name, info] : folder.weights->tensors())
    tensors.push_back({name, info.dtype, info.shape});
  const ModelSummary summary =
      summarise(tensors, core::read_strict_json(folder.path + "/config.json"));
  json["parameters"] = summary.parameters;
  json["active_parameters"] = summary.active.value_or(summary.parameters);
}

}  // namespace cohort::cli
