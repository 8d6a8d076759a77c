#include "rl/grpo.h"

#include "cli/training_command.h"

namespace cohort::cli {

Run add_grpo(CLI::App& app) { return add_training_command(app, rl::grpo); }

}  // namespace cohort::cli
