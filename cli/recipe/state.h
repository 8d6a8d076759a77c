// What a recipe's folder remembers of its stages: dir/recipe.json.
#pragma once
#include <map>
#include <string>

#include "cli/recipe/identity.h"

namespace cohort::cli {

struct StageState {
  std::string key;  ///< Of the inputs it was last started with.
  bool finished = false;
  Identity output;     ///< When it had finished.
  double seconds = 0;  ///< Of all its starts together.
};

/// Changes are on the disk when a function returns. One process at a time: throws InputError when
/// another holds the folder.
class RecipeState {
 public:
  /// Makes `dir` where `writes` is set. Throws InputError when what stands there cannot be read.
  RecipeState(const std::string& dir, bool writes);
  ~RecipeState();
  RecipeState(const RecipeState&) = delete;

  /// Null: it was never started.
  const StageState* find(const std::string& stage) const;
  void set(const std::string& stage, const StageState& state);

 private:
  std::string path_;
  int lock_ = -1;
  std::map<std::string, StageState> stages_;
};

}  // namespace cohort::cli
