#include "rl/rewards/math/judge.h"

#include <optional>

#include "rl/rewards/math/compare.h"
#include "rl/rewards/math/extract.h"

namespace cohort::rl::math {
namespace {

/// Nothing where the text is no expression or one too large to hold.
std::optional<Expression> read(std::string_view text, bool single_letter_units, Work& work) {
  if (text.size() > kMaxExpressionBytes) return std::nullopt;
  for (const std::string& form : {without_units(clean(text), single_letter_units), clean(text)}) {
    try {
      return parse(form, work);
    } catch (Unparsed) {
    } catch (TooBig) {
    } catch (Undefined) {
    }
  }
  return std::nullopt;
}

/// The gold: as it stands, else what a text that holds it says.
std::string gold_text(std::string_view gold, Work& work) {
  std::string_view text = gold.substr(0, kMaxExpressionBytes);
  if (text.find("\\boxed") == std::string_view::npos &&
      text.find("####") == std::string_view::npos && read(text, false, work))
    return std::string(text);
  const auto candidates = extract(text, work);
  return candidates.empty() ? std::string(text) : candidates.front().text;
}

bool judged(std::string_view gold, std::string_view answer, Verdict& verdict, Work& work) {
  const std::string gold_as_written = gold_text(gold, work);
  const std::string gold_words = as_words(gold_as_written);
  const std::optional<Expression> gold_expression = read(gold_as_written, false, work);
  const bool constant = gold_expression && !has_variables(*gold_expression);
  for (const Candidate& candidate : extract(answer, work)) {
    if (candidate.marked && !gold_words.empty() && as_words(candidate.text) == gold_words) {
      verdict.extracted = candidate.text;
      return true;
    }
    if (candidate.prose) continue;
    const std::optional<Expression> expression = read(candidate.text, constant, work);
    if (!expression) continue;
    verdict.extracted = candidate.text;
    return gold_expression && equal(*gold_expression, *expression, work);
  }
  return false;
}

}  // namespace

Verdict judge(std::string_view gold, std::string_view answer) {
  Verdict verdict;
  Work work;
  try {
    verdict.equal = judged(gold, answer, verdict, work);
  } catch (OutOfWork) {
    verdict.equal = false;
  }
  verdict.steps = work.steps;
  return verdict;
}

}  // namespace cohort::rl::math
