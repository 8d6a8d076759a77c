// `cohort`: one binary, a subcommand for each thing a user does.
#include <algorithm>
#include <string>
#include <vector>

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
    {"sft", "Teach a model by examples of what to say", cohort::cli::add_sft},
    {"grpo", "Teach a model by rewards of what it says (GRPO)", cohort::cli::add_grpo},
    {"eval", "Score a model on a task's held-out problems", cohort::cli::add_eval},
    {"sample", "Draw completions and keep the good ones as examples", cohort::cli::add_sample},
    {"generate", "Complete prompts with a model", cohort::cli::add_generate},
    {"upcycle",
     "Make a dense model into a mixture of experts that computes the same",
     cohort::cli::add_upcycle},
    {"data", "Turn text into token sets, and look into them", cohort::cli::add_data},
    {"tokenizer", "Train, encode, decode", cohort::cli::add_tokenizer},
    {"convert", "Between checkpoints and Hugging Face folders", cohort::cli::add_convert},
    {"inspect",
     "Tell what a checkpoint holds; --verify checks every byte",
     cohort::cli::add_inspect},
    {"report", "Write a run's page of plots", cohort::cli::add_report},
    {"recipe",
     "Run a chain of stages, each once, with one table over all",
     cohort::cli::add_recipe},
};

/// Names a first word that is no subcommand; CLI11 alone would ask for one.
void check_subcommand(int argc, char** argv) {
  if (argc < 2 || argv[1][0] == '-') return;
  std::vector<std::string> names;
  for (const auto& subcommand : kSubcommands) names.emplace_back(subcommand.name);
  COHORT_CHECK_INPUT(std::count(names.begin(), names.end(), argv[1]) > 0,
                     "there is no subcommand '{}'; there are {}",
                     argv[1],
                     fmt::join(names, ", "));
}

int parse_and_run(int argc, char** argv) {
  check_subcommand(argc, argv);
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
