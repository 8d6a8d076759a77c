// cohort sample: completions worth learning from, by a model and rewards.
#include "rl/sample.h"

#include <cstdio>
#include <memory>

#include "cli/training_command.h"
#include "core/base/log.h"
#include "core/config/parse.h"
#include "distributed/communicator.h"
#include "distributed/launch.h"

namespace cohort::cli {

Run add_sample(CLI::App& app) {
  const auto options = std::make_shared<ConfigOptions>();
  const auto overwrite = std::make_shared<bool>(false);
  options->add_to(app);
  app.add_flag("--overwrite",
               *overwrite,
               "Remove what stands at sample.out, finished or not, and begin anew; without it a "
               "command that was stopped goes on");
  return [options, overwrite] {
    const auto config = options->read();
    if (!config) return 0;
    const nlohmann::ordered_json summary = rl::sample(*config, *overwrite);
    if (distributed::world_rank() == 0) std::printf("%s\n", summary.dump().c_str());
    return 0;
  };
}

}  // namespace cohort::cli
