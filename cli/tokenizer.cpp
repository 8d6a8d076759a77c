#include "cli/commands.h"

namespace cohort::cli {

Run add_tokenizer(CLI::App& app) {
  return [] { return 1; };
}

}  // namespace cohort::cli
