#include "cli/training_command.h"

#include <cstdio>
#include <memory>

#include "core/base/log.h"
#include "core/config/parse.h"
#include "distributed/communicator.h"
#include "distributed/device_choice.h"
#include "distributed/launch.h"

namespace cohort::cli {
namespace {

/// Text in the quotes of YAML.
std::string yaml_text(const std::string& text) {
  std::string out = "'";
  for (char c : text) out += c == '\'' ? "''" : std::string(1, c);
  return out + "'";
}

}  // namespace

Run add_training_command(CLI::App& app, Train train) {
  struct Options {
    std::string config, model;
    std::vector<std::string> overrides;
    bool resume = false, print_config = false;
  };
  auto options = std::make_shared<Options>();
  app.add_option("--config", options->config, "YAML file of the run")->required();
  app.add_option("--model",
                 options->model,
                 "Folder of the model to start from, a checkpoint, a run or a Hugging Face model "
                 "(run.model)");
  app.add_option(
      "overrides", options->overrides, "Settings that replace the file's: train.steps=500");
  app.add_flag("--resume", options->resume, "Go on from the newest good checkpoint of run.dir");
  app.add_flag("--print-config", options->print_config, "Show every setting as resolved, and end");
  app.footer(core::config_reference());
  return [options, train = std::move(train)] {
    auto overrides = options->overrides;
    if (!options->model.empty()) overrides.push_back("run.model=" + yaml_text(options->model));
    const core::Config config = core::parse_config(options->config, overrides);
    if (options->print_config) {
      if (distributed::world_rank() == 0) std::fputs(core::to_yaml(config).c_str(), stdout);
      return 0;
    }
    core::setup_logging(distributed::world_rank(), distributed::world_size());
    distributed::set_collective_timeout(config.run.timeout_s);
    distributed::set_run_device(distributed::choose_device(config.run.device));
    train(config, options->resume);
    return 0;
  };
}

}  // namespace cohort::cli
