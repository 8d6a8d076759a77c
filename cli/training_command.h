// What the commands that read a config have in common: overrides, --model, and of those that train
// --resume.
#pragma once
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "cli/commands.h"
#include "core/config/config.h"

namespace cohort::cli {

struct ConfigOptions {
  std::string config, model;
  std::vector<std::string> overrides;
  bool print_config = false;

  /// --config, --model, --print-config and the overrides.
  void add_to(CLI::App& app);
  /// The config, with logging and timeouts set up by it; nothing where --print-config has shown it.
  std::optional<core::Config> read() const;
};

using Train = std::function<void(const core::Config& config, bool resume)>;

/// Adds the options; the result reads the config and calls `train`, or shows it (--print-config).
Run add_training_command(CLI::App& app, Train train);

}  // namespace cohort::cli
