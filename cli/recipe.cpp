// cohort recipe FILE: a chain of stages, each done once.
#include "cli/recipe/recipe.h"

#include <algorithm>
#include <cstdio>
#include <memory>

#include "cli/commands.h"
#include "cli/recipe/runner.h"
#include "cli/recipe/state.h"
#include "cli/recipe/table.h"
#include "cli/recipe/words.h"
#include "core/base/error.h"
#include "distributed/launch.h"

namespace cohort::cli {
namespace {

struct Arguments {
  std::string file, until, redo;
  std::vector<std::string> overrides;
  bool list = false;
};

int list(const Recipe& recipe, const RecipeState& state) {
  const auto now = standings(recipe, state);
  for (size_t index = 0; index < recipe.stages.size(); ++index) {
    const Stage& stage = recipe.stages[index];
    std::printf("%-20s %s\n", stage.name.c_str(), standing_text(now[index]));
    std::printf("    %s\n", shell_line(stage.command).c_str());
  }
  return 0;
}

int run(const Arguments& arguments) {
  COHORT_CHECK_INPUT(
      distributed::world_size() == 1,
      "recipe: starts the ranks of its stages itself; want it without mpirun (it was "
      "started on {} ranks)",
      distributed::world_size());
  const Recipe recipe = load_recipe(arguments.file, arguments.overrides);
  const size_t last =
      arguments.until.empty() ? recipe.stages.size() - 1 : recipe.stage(arguments.until);
  const bool redo = !arguments.redo.empty();
  const size_t again = redo ? recipe.stage(arguments.redo) : 0;
  RecipeState state(recipe.dir, !arguments.list);
  if (arguments.list) return list(recipe, state);
  for (const Stage& stage : recipe.stages)
    input_files(recipe, stage);  // missing ones, before anything runs
  if (redo) state.set(recipe.stages[again].name, StageState{});
  const bool finished = run_stages(recipe, state, last);
  const auto figures = read_figures(recipe, state);
  std::printf("\n%s%s\n", text_table(figures).c_str(), write_page(recipe, state, figures).c_str());
  if (!finished) std::printf("stopped; the same command goes on from there\n");
  return 0;
}

}  // namespace

Run add_recipe(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  app.add_option(
         "FILE", arguments->file, "YAML file: stages with their commands, and a table of models")
      ->required();
  app.add_option("overrides", arguments->overrides, "Settings of the file: NAME=VALUE; dir=FOLDER");
  app.add_option("--until", arguments->until, "The last stage to run");
  app.add_option("--redo", arguments->redo, "A stage to run again though nothing changed");
  app.add_flag(
      "--list", arguments->list, "Show the stages, what is done and what would run, and end");
  app.footer(
      "A stage whose command, named files and inputs are as they were is not run again; an "
      "interrupted\n"
      "one goes on. Outputs that a change made worthless are moved to DIR/replaced. "
      "DIR/report.html has\n"
      "the table of models, DIR/logs what the stages wrote. Needs no mpirun: it starts its stages' "
      "ranks.");
  return [arguments] { return run(*arguments); };
}

}  // namespace cohort::cli
