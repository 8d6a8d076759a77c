#include "moe/pretrain.h"

#include <cstdio>
#include <memory>

#include "cli/commands.h"
#include "core/base/log.h"
#include "core/config/parse.h"
#include "distributed/communicator.h"
#include "distributed/launch.h"

namespace cohort::cli {

Run add_pretrain(CLI::App& app) {
  struct Options {
    std::string config;
    std::vector<std::string> overrides;
    bool resume = false, print_config = false;
  };
  auto options = std::make_shared<Options>();
  app.add_option("--config", options->config, "YAML file of the run")->required();
  app.add_option("overrides", options->overrides, "Settings that replace the file's: train.steps=500");
  app.add_flag("--resume", options->resume, "Go on from the newest good checkpoint of run.dir");
  app.add_flag("--print-config", options->print_config, "Show every setting as resolved, and end");
  app.footer(core::config_reference());
  return [options] {
    const core::Config config = core::parse_config(options->config, options->overrides);
    if (options->print_config) {
      if (distributed::world_rank() == 0) std::fputs(core::to_yaml(config).c_str(), stdout);
      return 0;
    }
    core::setup_logging(distributed::world_rank(), distributed::world_size());
    distributed::set_collective_timeout(config.run.timeout_s);
    moe::pretrain(config, options->resume);
    return 0;
  };
}

}  // namespace cohort::cli
