#include "rl/sft.h"

#include "cli/training_command.h"

namespace cohort::cli {

Run add_sft(CLI::App& app) { return add_training_command(app, rl::sft); }

}  // namespace cohort::cli
