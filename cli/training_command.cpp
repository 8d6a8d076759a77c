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

void ConfigOptions::add_to(CLI::App& app) {
  app.add_option("--config", config, "YAML file of the run")->required();
  app.add_option("--model",
                 model,
                 "Folder of the model to start from, a checkpoint, a run or a Hugging Face model "
                 "(run.model)");
  app.add_option("overrides", overrides, "Settings that replace the file's: train.steps=500");
  app.add_flag("--print-config", print_config, "Show every setting as resolved, and end");
  app.footer(core::config_reference());
}

std::optional<core::Config> ConfigOptions::read() const {
  auto all = overrides;
  if (!model.empty()) all.push_back("run.model=" + yaml_text(model));
  const core::Config parsed = core::parse_config(config, all);
  if (print_config) {
    if (distributed::world_rank() == 0) std::fputs(core::to_yaml(parsed).c_str(), stdout);
    return std::nullopt;
  }
  core::setup_logging(distributed::world_rank(), distributed::world_size());
  distributed::set_collective_timeout(parsed.run.timeout_s);
  distributed::set_run_device(distributed::choose_device(parsed.run.device));
  return parsed;
}

Run add_training_command(CLI::App& app, Train train) {
  const auto options = std::make_shared<ConfigOptions>();
  const auto resume = std::make_shared<bool>(false);
  options->add_to(app);
  app.add_flag("--resume", *resume, "Go on from the newest good checkpoint of run.dir");
  return [options, resume, train = std::move(train)] {
    if (const auto config = options->read()) train(*config, *resume);
    return 0;
  };
}

}  // namespace cohort::cli
