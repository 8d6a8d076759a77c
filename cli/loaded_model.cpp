#include "cli/loaded_model.h"

#include "core/base/error.h"
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
  distributed::set_run_device(distributed::choose_device(options.device));
  return distributed::make_mesh({0, options.ep, 1});
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
}

LoadedModel::LoadedModel(const ModelOptions& options)
    : mesh(make_mesh(options)),
      folder(open_folder(options, mesh)),
      tokenizer(folder.tokenizer()),
      model(folder.config,
            mesh.ep,
            1,
            options.precision == "bf16" ? at::kBFloat16 : at::kFloat,
            mesh.device) {
  rl::load_model_weights(folder, model);
}

}  // namespace cohort::cli
