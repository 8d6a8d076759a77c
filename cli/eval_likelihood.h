// The tasks of `cohort eval` that score given texts and draw none: perplexity, multiple_choice.
#pragma once
#include <CLI/CLI.hpp>
#include <string>

#include "cli/loaded_model.h"

namespace cohort::cli {

struct LikelihoodOptions {
  std::string data, field = "text", split = "file", few_shot_file;
  std::string delimiter = " ";
  int64_t few_shot = 0, window = 0, stride = 0;
  bool add_bos = false;

  /// --data, --field, --split, --window, --stride, --delimiter, --add-bos, and --few-shot and
  /// --few-shot-file, which the generating tasks have too.
  void add_to(CLI::App& app);
};

bool is_likelihood_task(const std::string& task);

/// InputError when an option is given that `task`, a generating one, has no use for.
void refuse_likelihood_options(const LikelihoodOptions& options, const std::string& task);

/// Prints the figures on rank 0. `save`, if not empty: a JSONL file of each question's
/// log-likelihoods (multiple_choice). Collective.
int evaluate_likelihood(const std::string& task,
                        const ModelOptions& model,
                        const LikelihoodOptions& options,
                        const std::string& save,
                        bool json);

}  // namespace cohort::cli
