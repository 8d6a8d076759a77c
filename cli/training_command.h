// What the commands that train have in common: a config with overrides, --model, --resume.
#pragma once
#include <functional>

#include "cli/commands.h"
#include "core/config/config.h"

namespace cohort::cli {

using Train = std::function<void(const core::Config& config, bool resume)>;

/// Adds the options; the result reads the config and calls `train`, or shows it (--print-config).
Run add_training_command(CLI::App& app, Train train);

}  // namespace cohort::cli
