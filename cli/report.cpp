#include <cstdio>
#include <memory>

#include "cli/commands.h"
#include "core/metrics/metrics.h"

namespace cohort::cli {

Run add_report(CLI::App& app) {
  struct Options {
    std::string run_dir, out;
  };
  auto options = std::make_shared<Options>();
  app.add_option("RUN_DIR", options->run_dir, "run.dir of a training: it holds metrics.jsonl")
      ->required();
  app.add_option("--out", options->out, "File to write (default: RUN_DIR/report.html)");
  app.footer(
      "One self-contained HTML page: curves, expert loads, data card, config. It loads nothing, so "
      "it\n"
      "can be sent or kept. A run that is still going may be reported on too.");
  return [options] {
    std::printf("%s\n", core::write_report(options->run_dir, options->out).c_str());
    return 0;
  };
}

}  // namespace cohort::cli
