// Prompt templates: a text with {fields}. {question} must be one of them, or all that a question is
// made of; the others are the task's own (countdown: {numbers}, {target}; jsonl: any field of a
// line). {{ and }} stand for single braces.
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

namespace cohort::rl {

class PromptTemplate {
 public:
  /// InputError for a text that has neither {question} (unless it need not have it) nor all the
  /// other `fields`, for a brace that is not closed, and, unless `fields` is empty, for a field
  /// that is not among them.
  PromptTemplate(const std::string& text,
                 const std::vector<std::string>& fields,
                 bool needs_question = true);

  /// The template with the fields of `data` filled in: strings as they are, lists of numbers as
  /// "3, 5, 7", all else as JSON. InputError for a field that `data` lacks.
  std::string fill(const nlohmann::json& data) const;

 private:
  struct Piece {
    bool is_field;
    std::string text;
  };
  std::vector<Piece> pieces_;
};

/// The prompt of DeepSeek-R1-Zero (arXiv 2501.12948, table 1): thoughts in <think>, the answer in
/// <answer>.
extern const char* const kR1Template;

}  // namespace cohort::rl
