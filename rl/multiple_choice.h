// Questions with given choices: the choice that the model holds for likeliest is its answer, as
// lm-evaluation-harness scores tasks of output_type multiple_choice.
#pragma once
#include <array>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "core/tokenizer/tokenizer.h"
#include "distributed/mesh.h"
#include "moe/transformer.h"

namespace cohort::rl {

/// One line of a file.
struct ChoiceQuestion {
  std::string query;
  std::vector<std::string> choices;  ///< At least one, none empty.
  std::vector<int64_t> gold;         ///< Positions of the right ones, at least one.
  std::string where;                 ///< "file.jsonl:3", for messages.
};

/// JSON lines {"query": text, "choices": [text, ...], "gold": position, list of positions, or the
/// text of the right choice}; further fields are passed over. InputError naming the line that is
/// something else, or a file without questions.
std::vector<ChoiceQuestion> read_choice_questions(const std::string& path);

struct MultipleChoiceOptions {
  std::string delimiter = " ";     ///< Between query and choice; scored with the choice.
  std::string separator = "\n\n";  ///< Behind each worked example.
  bool add_bos = false;            ///< Put the begin token before every query.
  int64_t window = 0;              ///< Tokens; 0: max_position_embeddings. Longer queries lose
                                   ///< their beginning.
  std::span<const ChoiceQuestion> examples = {};  ///< Worked ones that stand before each question,
                                                  ///< in order; the question itself is left out.
};

/// A share of right answers, with the standard error of the mean (n - 1) and Wilson's 95 %
/// interval.
struct Accuracy {
  double value = 0, stderr_of_mean = 0;
  std::array<double, 2> ci95{0, 1};
};

struct MultipleChoice {
  int64_t questions = 0;
  Accuracy acc;        ///< Likeliest choice: highest log-likelihood.
  Accuracy acc_norm;   ///< Highest log-likelihood a character of the choice (its delimiter apart).
  Accuracy acc_bytes;  ///< Highest log-likelihood a byte.
  Accuracy exact_match;  ///< Greedy decoding would write a right choice.
  std::vector<std::vector<double>> log_likelihoods;  ///< [question][choice]
};

/// The same figures on any mesh (see log_likelihood.h). InputError for a choice without a token of
/// its own, or with more than the window. Collective over dp.
MultipleChoice multiple_choice(moe::Transformer& model,
                               const distributed::Mesh& mesh,
                               const core::Tokenizer& tokenizer,
                               std::span<const ChoiceQuestion> questions,
                               const MultipleChoiceOptions& options);

/// questions; acc, acc_norm, acc_bytes and exact_match, each with _stderr and _ci95.
nlohmann::ordered_json multiple_choice_json(const MultipleChoice& result);

}  // namespace cohort::rl
