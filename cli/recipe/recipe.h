// A chain of commands: named stages with inputs and outputs, read from a YAML file.
//
//   title: A base, and what GRPO makes of it
//   dir: runs/chain                        # the stages' outputs lie below it
//   launch: mpirun -n ${ranks}             # put before stages of several ranks
//   settings: {steps: 500}                 # `cohort recipe FILE steps=20` replaces one
//   stages:
//     - {name: base, ranks: 2, run: "cohort pretrain --config base.yaml --resume run.dir=${out}
//     train.steps=${steps}"}
//     - {name: zero, ranks: 2, run: "cohort grpo --config zero.yaml --resume --model ${base}
//     run.dir=${out}"}
//   evaluate: {ranks: 1, options: --config zero.yaml --problems 500}
//   table:
//     - {model: base, label: Base}
//     - {model: zero, label: Zero, about: rules alone}
//
// `run` is split into words as a shell does (quotes keep spaces), then ${...} is replaced: ${out}
// is the stage's own output (dir/name, or dir/out), ${NAME} that of an earlier stage, ${ranks},
// ${dir},
// ${SETTING}. Nothing passes through a shell. A first word `cohort` is this binary. A row of the
// table adds a stage eval-MODEL after its model's.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace cohort::cli {

struct Stage {
  std::string name, about;
  std::vector<std::string> command;  ///< Ready to run; "cohort" stands for this binary.
  std::string out;                   ///< File or folder that the command makes.
  int64_t ranks = 1;
  bool resumes = false;  ///< The command goes on with what an interrupted one left.
  /// Files that results depend on: `inputs`, and existing files that words of the command name.
  std::vector<std::string> inputs;
  std::vector<size_t> after;  ///< Stages whose output the command names, ascending.
};

/// A model and the figures of it.
struct TableRow {
  std::string label, about;
  size_t model = 0, evaluation = 0;  ///< Stages.
};

struct Recipe {
  std::string title, file, dir;
  std::vector<std::string> launch;  ///< Words, with ${ranks} in them.
  std::vector<Stage> stages;        ///< Each after those it needs.
  std::vector<TableRow> table;

  /// Index of a stage; throws InputError naming what there is.
  size_t stage(const std::string& name) const;
};

/// `overrides`: NAME=VALUE for settings, and dir=FOLDER. Throws InputError "FILE:LINE: ..." for
/// what is no recipe.
Recipe load_recipe(const std::string& file, const std::vector<std::string>& overrides);

/// The completions of an evaluation, beside its figures: eval/zero.jsonl of eval/zero.json.
std::string completions_of(const Stage& evaluation);

}  // namespace cohort::cli
