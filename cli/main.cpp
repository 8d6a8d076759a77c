// `cohort`: one binary, a subcommand for each thing a user does.
#include "cli/commands.h"
#include "core/base/error.h"
#include "distributed/launch.h"

namespace {

struct Subcommand {
  const char* name;
  const char* summary;
  cohort::cli::Run (*add)(CLI::App&);
};

constexpr Subcommand kSubcommands[] = {
    {"pretrain", "Train a model on token sets", cohort::cli::add_pretrain},
    {"data", "Turn text into token sets, and look into them", cohort::cli::add_data},
    {"tokenizer", "Train, encode, decode", cohort::cli::add_tokenizer},
    {"inspect",
     "Tell what a checkpoint holds; --verify checks every byte",
     cohort::cli::add_inspect},
    {"report", "Write a run's page of plots", cohort::cli::add_report},
};

int parse_and_run(int argc, char** argv) {
  CLI::App app{"Cohort trains DeepSeek-style mixture-of-experts language models.", "cohort"};
  app.require_subcommand(1);
  app.set_version_flag("--version", COHORT_VERSION);
  cohort::cli::Run chosen;
  for (const auto& subcommand : kSubcommands) {
    CLI::App* added = app.add_subcommand(subcommand.name, subcommand.summary);
    const cohort::cli::Run run = subcommand.add(*added);
    added->callback([&chosen, run] { chosen = run; });
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
    throw cohort::InputError(std::string(error.what()) + " (see cohort --help)");
  }
  return chosen();
}

}  // namespace

int main(int argc, char** argv) {
  cohort::distributed::launch(&argc, &argv);
  return cohort::distributed::run_ranks([&] { return parse_and_run(argc, argv); });
}
