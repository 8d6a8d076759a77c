// What a recipe's models got: the table for the terminal, and dir/report.html.
#pragma once
#include <string>
#include <vector>

#include "cli/recipe/recipe.h"
#include "cli/recipe/state.h"

namespace cohort::cli {

/// One completion that the page shows.
struct Sample {
  std::string prompt, completion;
  bool correct = false;
};

/// The figures of a model, as `cohort eval` gave them.
struct Figures {
  std::string label, about, stage;
  double pass = 0, low = 0, high = 0;  ///< pass@1 and its 95 % interval.
  double tokens = 0, truncated = 0;    ///< Mean tokens of a completion, share that was cut.
  int64_t problems = 0, samples = 0, parameters = 0, active = 0;
  std::vector<std::pair<std::string, double>> rewards;  ///< Label and mean.
  double seconds = 0;                                   ///< Of the stage that made it.
  std::vector<Sample> shown;  ///< The first completions of the first problems.
};

/// Of the rows whose evaluation has finished. Throws InputError for a file that is no such result.
std::vector<Figures> read_figures(const Recipe& recipe, const RecipeState& state);

/// A table of text, one line a model.
std::string text_table(const std::vector<Figures>& figures);

/// Writes dir/report.html, one page that needs no network; returns its path.
std::string write_page(const Recipe& recipe,
                       const RecipeState& state,
                       const std::vector<Figures>& figures);

}  // namespace cohort::cli
