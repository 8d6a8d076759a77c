#include "moe/pretrain.h"

#include "cli/training_command.h"
#include "rl/model_folder.h"

namespace cohort::cli {

Run add_pretrain(CLI::App& app) {
  return add_training_command(app, [](const core::Config& config, bool resume) {
    moe::StartingWeights start;
    if (!config.run.model.empty())
      start = [path = config.run.model](moe::Transformer& model) {
        rl::load_model_weights(rl::open_model_folder(path), model);
      };
    moe::pretrain(config, resume, start);
  });
}

}  // namespace cohort::cli
