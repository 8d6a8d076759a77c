#include "rl/tasks/prompt_template.h"

#include <algorithm>

#include "core/base/error.h"

namespace cohort::rl {

const char* const kR1Template =
    "A conversation between User and Assistant. The user asks a question, and the Assistant solves "
    "it. "
    "The assistant first thinks about the reasoning process in the mind and then provides the user "
    "with the answer. The reasoning process and answer are enclosed within <think> </think> and "
    "<answer> </answer> tags, respectively, i.e., <think> reasoning process here </think> "
    "<answer> answer here </answer>. User: {question}. Assistant:";

PromptTemplate::PromptTemplate(const std::string& text,
                               const std::vector<std::string>& fields,
                               bool needs_question) {
  std::string plain;
  std::vector<std::string> used;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c != '{' && c != '}') {
      plain += c;
      continue;
    }
    if (i + 1 < text.size() && text[i + 1] == c) {
      plain += c;
      ++i;
      continue;
    }
    const size_t end = c == '{' ? text.find('}', i) : std::string::npos;
    COHORT_CHECK_INPUT(
        end != std::string::npos,
        "prompt template: the brace at character {} has no partner; write {{{{ or }}}} "
        "for a brace itself",
        i + 1);
    const std::string field = text.substr(i + 1, end - i - 1);
    std::string names;
    for (const std::string& name : fields) names += " {" + name + "}";
    COHORT_CHECK_INPUT(
        fields.empty() || std::find(fields.begin(), fields.end(), field) != fields.end(),
        "prompt template: there is no {{{}}}; this task has{}",
        field,
        names);
    used.push_back(field);
    if (!plain.empty()) pieces_.push_back({false, std::exchange(plain, "")});
    pieces_.push_back({true, field});
    i = end;
  }
  if (!plain.empty()) pieces_.push_back({false, plain});
  const auto stands = [&](const std::string& field) {
    return std::find(used.begin(), used.end(), field) != used.end();
  };
  // Without the question's own words all of what it is made of must be there.
  const bool complete =
      fields.size() > 1 && std::all_of(fields.begin(), fields.end(), [&](auto& field) {
        return field == "question" || stands(field);
      });
  COHORT_CHECK_INPUT(!needs_question || stands("question") || complete,
                     "prompt template: {{question}} stands nowhere in it");
}

std::string PromptTemplate::fill(const nlohmann::json& data) const {
  std::string prompt;
  for (const Piece& piece : pieces_) {
    if (!piece.is_field) {
      prompt += piece.text;
      continue;
    }
    COHORT_CHECK_INPUT(data.is_object() && data.contains(piece.text),
                       "prompt template: this problem has no field {}",
                       piece.text);
    const nlohmann::json& value = data[piece.text];
    if (value.is_string()) {
      prompt += value.get<std::string>();
    } else if (value.is_array()) {
      for (size_t i = 0; i < value.size(); ++i)
        prompt += (i ? ", " : "") +
                  (value[i].is_string() ? value[i].get<std::string>() : value[i].dump());
    } else {
      prompt += value.dump();
    }
  }
  return prompt;
}

}  // namespace cohort::rl
