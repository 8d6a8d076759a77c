#include "cli/loaded_model.h"

#include "core/base/error.h"

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
}

LoadedModel::LoadedModel(const ModelOptions& options)
    : mesh(distributed::make_mesh({0, options.ep, 1})),
      folder(open_folder(options, mesh)),
      tokenizer(folder.tokenizer()),
      model(undrawn(folder.config),
            mesh.ep,
            1,
            options.precision == "bf16" ? at::kBFloat16 : at::kFloat) {
  rl::load_model_weights(folder, model);
}

}  // namespace cohort::cli
