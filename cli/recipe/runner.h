// Which stages of a recipe are done, and doing the others.
#pragma once
#include <string>
#include <vector>

#include "cli/recipe/recipe.h"
#include "cli/recipe/state.h"

namespace cohort::cli {

enum class Standing { kDone, kNew, kUnfinished, kInputsChanged, kOutputChanged };

/// "done", "to do", ...
const char* standing_text(Standing standing);

/// What would happen to each stage now: a stage after one that is not done is not done either.
std::vector<Standing> standings(const Recipe& recipe, const RecipeState& state);

/// Runs the stages up to and including `last` that are not done, in order. What an earlier form of
/// a stage left is moved to dir/replaced, never deleted; an interrupted stage goes on when it can.
/// Throws Error (or InputError, when the stage ended with 2) naming the stage and its log. False
/// when it was asked to stop.
bool run_stages(const Recipe& recipe, RecipeState& state, size_t last);

}  // namespace cohort::cli
