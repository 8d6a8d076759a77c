#include "moe/pretrain.h"

#include <memory>

#include "cli/training_command.h"
#include "rl/model_folder.h"

namespace cohort::cli {

Run add_pretrain(CLI::App& app) {
  return add_training_command(app, [](const core::Config& config, bool resume) {
    moe::StartingWeights start;
    if (!config.run.model.empty()) {
      // Opened before anything else, for its faults. A run that goes on may do without it.
      std::shared_ptr<rl::ModelFolder> folder;
      if (!resume)
        folder = std::make_shared<rl::ModelFolder>(rl::open_model_folder(config.run.model));
      start = [folder, path = config.run.model](moe::Transformer& model) {
        rl::load_model_weights(folder ? *folder : rl::open_model_folder(path), model);
      };
    }
    moe::pretrain(config, resume, start);
  });
}

}  // namespace cohort::cli
