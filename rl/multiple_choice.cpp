#include "rl/multiple_choice.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>

#include "core/base/error.h"
#include "rl/log_likelihood.h"
#include "rl/pass_statistics.h"
#include "rl/perplexity.h"

namespace cohort::rl {
namespace {

using nlohmann::json;

std::vector<int64_t> gold_of(const json& given,
                             const std::vector<std::string>& choices,
                             const std::string& where) {
  std::vector<int64_t> gold;
  for (const json& one : given.is_array() ? given : json::array({given})) {
    int64_t idx = -1;
    if (one.is_number_integer())
      idx = one.get<int64_t>();
    else if (one.is_string())
      idx = std::find(choices.begin(), choices.end(), one.get<std::string>()) - choices.begin();
    COHORT_CHECK_INPUT(idx >= 0 && idx < static_cast<int64_t>(choices.size()),
                       "{}: its \"gold\" {} is none of the {} choices; want a position from 0 on, "
                       "or the text of a choice",
                       where,
                       one.dump(-1, ' ', false, json::error_handler_t::replace),
                       choices.size());
    gold.push_back(idx);
  }
  COHORT_CHECK_INPUT(!gold.empty(), "{}: its \"gold\" is empty; want the right choice", where);
  return gold;
}

ChoiceQuestion read_line(const std::string& line, const std::string& where) {
  const json fields = json::parse(line, nullptr, false);
  const char* const form = "want {\"query\": \"...\", \"choices\": [\"...\"], \"gold\": 0}";
  COHORT_CHECK_INPUT(fields.is_object(), "{}: is no JSON object; {}", where, form);
  for (const char* key : {"query", "choices", "gold"})
    COHORT_CHECK_INPUT(fields.contains(key), "{}: has no field \"{}\"; {}", where, key, form);
  COHORT_CHECK_INPUT(fields["query"].is_string(), "{}: its \"query\" is no text; {}", where, form);
  const json& choices = fields["choices"];
  const bool texts = choices.is_array() && !choices.empty() &&
                     std::all_of(choices.begin(), choices.end(), [](const json& one) {
                       return one.is_string() && !one.get_ref<const std::string&>().empty();
                     });
  COHORT_CHECK_INPUT(
      texts, "{}: its \"choices\" are no list of texts that say something; {}", where, form);
  ChoiceQuestion question{fields["query"], choices, {}, where};
  question.gold = gold_of(fields["gold"], question.choices, where);
  return question;
}

bool same_question(const ChoiceQuestion& a, const ChoiceQuestion& b) {
  return a.query == b.query && a.choices == b.choices;
}

std::string worked_examples(const ChoiceQuestion& question, const MultipleChoiceOptions& options) {
  std::string text;
  for (const ChoiceQuestion& one : options.examples)
    if (!same_question(one, question))
      text += one.query + options.delimiter + one.choices[one.gold[0]] + options.separator;
  return text;
}

std::vector<LikelihoodRequest> requests_of(std::span<const ChoiceQuestion> questions,
                                           const core::Tokenizer& tokenizer,
                                           int32_t prefix,
                                           int64_t window,
                                           const MultipleChoiceOptions& options) {
  std::vector<LikelihoodRequest> requests;
  for (const ChoiceQuestion& question : questions) {
    const std::string context = worked_examples(question, options) + question.query;
    for (const std::string& choice : question.choices) {
      requests.push_back(likelihood_request(
          tokenizer, context, options.delimiter + choice, prefix, options.add_bos));
      const size_t tokens = requests.back().continuation.size();
      COHORT_CHECK_INPUT(tokens >= 1,
                         "{}: the choice \"{}\" adds no token to its query; want one that does, or "
                         "another delimiter",
                         question.where,
                         choice);
      COHORT_CHECK_INPUT(static_cast<int64_t>(tokens) <= window,
                         "{}: a choice of {} tokens exceeds the window of {}; want a shorter one",
                         question.where,
                         tokens,
                         window);
    }
  }
  return requests;
}

/// Position of the largest value, the first of equals.
int64_t argmax(const std::vector<double>& values) {
  return std::max_element(values.begin(), values.end()) - values.begin();
}

Accuracy accuracy_of(const std::vector<char>& right) {
  const auto count = static_cast<double>(right.size());
  const int64_t sum = std::count(right.begin(), right.end(), 1);
  Accuracy accuracy;
  accuracy.value = static_cast<double>(sum) / count;
  // Of values 0 and 1 the sample variance is n p (1 - p) / (n - 1).
  if (right.size() > 1)
    accuracy.stderr_of_mean = std::sqrt(accuracy.value * (1 - accuracy.value) / (count - 1));
  accuracy.ci95 = wilson_interval(sum, static_cast<int64_t>(right.size()));
  return accuracy;
}

/// Which measures found question right.
struct Verdicts {
  std::vector<char> acc, acc_norm, acc_bytes, exact_match;

  void add(const ChoiceQuestion& question, std::span<const Likelihood> scored) {
    std::vector<double> sum, per_character, per_byte;
    for (size_t i = 0; i < scored.size(); ++i) {
      const std::string& choice = question.choices[i];
      const auto characters =
          std::count_if(choice.begin(), choice.end(), [](char c) { return (c & 0xC0) != 0x80; });
      sum.push_back(scored[i].log_prob);
      per_character.push_back(scored[i].log_prob / static_cast<double>(characters));
      per_byte.push_back(scored[i].log_prob / static_cast<double>(choice.size()));
    }
    const auto right = [&](int64_t idx) -> char {
      return std::count(question.gold.begin(), question.gold.end(), idx) > 0;
    };
    acc.push_back(right(argmax(sum)));
    acc_norm.push_back(right(argmax(per_character)));
    acc_bytes.push_back(right(argmax(per_byte)));
    exact_match.push_back(std::any_of(question.gold.begin(), question.gold.end(), [&](int64_t idx) {
      return scored[static_cast<size_t>(idx)].likeliest;
    }));
  }
};

}  // namespace

std::vector<ChoiceQuestion> read_choice_questions(const std::string& path) {
  std::error_code ignored;
  COHORT_CHECK_INPUT(!std::filesystem::is_directory(path, ignored),
                     "{}: is a folder; want a JSONL file of questions",
                     path);
  std::ifstream file(path, std::ios::binary);
  COHORT_CHECK_INPUT(file.good(), "{}: cannot be opened; want a JSONL file of questions", path);
  std::vector<ChoiceQuestion> questions;
  std::string line;
  for (int64_t number = 1; std::getline(file, line); ++number)
    if (line.find_first_not_of(" \t\r") != std::string::npos)
      questions.push_back(read_line(line, fmt::format("{}:{}", path, number)));
  COHORT_CHECK_INPUT(!questions.empty(), "{}: holds no question; want one object a line", path);
  return questions;
}

MultipleChoice multiple_choice(moe::Transformer& model,
                               const distributed::Mesh& mesh,
                               const core::Tokenizer& tokenizer,
                               std::span<const ChoiceQuestion> questions,
                               const MultipleChoiceOptions& options) {
  const int64_t longest = model.config().max_position_embeddings;
  const int64_t window = options.window > 0 ? options.window : longest;
  COHORT_CHECK_INPUT(window <= longest,
                     "a window of {} tokens exceeds the model's {} positions; want a smaller one",
                     window,
                     longest);
  COHORT_CHECK_INPUT(!questions.empty(), "multiple choice: there is no question");
  const auto requests =
      requests_of(questions, tokenizer, prefix_token(model.config()), window, options);
  const auto scored = log_likelihoods(model, mesh, requests, window);
  MultipleChoice out;
  out.questions = static_cast<int64_t>(questions.size());
  Verdicts verdicts;
  size_t at = 0;
  for (const ChoiceQuestion& question : questions) {
    const std::span<const Likelihood> mine(scored.data() + at, question.choices.size());
    verdicts.add(question, mine);
    out.log_likelihoods.emplace_back();
    for (const Likelihood& one : mine) out.log_likelihoods.back().push_back(one.log_prob);
    at += mine.size();
  }
  out.acc = accuracy_of(verdicts.acc);
  out.acc_norm = accuracy_of(verdicts.acc_norm);
  out.acc_bytes = accuracy_of(verdicts.acc_bytes);
  out.exact_match = accuracy_of(verdicts.exact_match);
  return out;
}

nlohmann::ordered_json multiple_choice_json(const MultipleChoice& result) {
  nlohmann::ordered_json json{{"questions", result.questions}};
  const auto add = [&json](const std::string& name, const Accuracy& accuracy) {
    json[name] = accuracy.value;
    json[name + "_stderr"] = accuracy.stderr_of_mean;
    json[name + "_ci95"] = accuracy.ci95;
  };
  add("acc", result.acc);
  add("acc_norm", result.acc_norm);
  add("acc_bytes", result.acc_bytes);
  add("exact_match", result.exact_match);
  return json;
}

}  // namespace cohort::rl
