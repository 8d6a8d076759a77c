#include "cli/commands.h"

namespace cohort::cli {

Run add_inspect(CLI::App& app) {
  return [] { return 1; };
}

}  // namespace cohort::cli
