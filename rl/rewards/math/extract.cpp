#include "rl/rewards/math/extract.h"

#include <algorithm>
#include <cctype>
#include <deque>
#include <optional>

#include "rl/rewards/math/expression.h"

namespace cohort::rl::math {
namespace {

constexpr size_t npos = std::string_view::npos;
constexpr size_t kPhraseReach = 50;  // from the phrase to its formula
constexpr size_t kSentence = 400;    // longest sentence read after a phrase
constexpr size_t kTail = 16384;      // the end of the text in which the last expression is sought
constexpr size_t kWholeText = 400;   // longest text that may be an answer as it stands

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_letter(char c) { return std::isalpha(static_cast<unsigned char>(c)); }
bool is_space(char c) { return std::isspace(static_cast<unsigned char>(c)); }

std::string_view trim(std::string_view text) {
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  return text;
}

struct Box {
  size_t start, end;
  std::string_view content;
};

/// The last box before `limit`.
std::optional<Box> last_box(std::string_view text, size_t limit) {
  if (limit == 0) return std::nullopt;
  size_t start = text.rfind("\\boxed", limit - 1), skip = 6;
  const size_t framed = text.rfind("\\fbox", limit - 1);
  if (framed != npos && (start == npos || framed > start)) start = framed, skip = 5;
  if (start == npos) return std::nullopt;
  size_t open = start + skip;
  while (open < text.size() && is_space(text[open])) ++open;
  if (open >= text.size()) return Box{start, text.size(), {}};
  if (text[open] != '{') return Box{start, open + 1, text.substr(open, 1)};
  int depth = 0;
  const size_t reach = std::min(text.size(), open + kMaxExpressionBytes);
  for (size_t i = open; i < reach; ++i) {
    if (text[i] == '\\' && i + 1 < reach && (text[i + 1] == '{' || text[i + 1] == '}')) {
      ++i;
    } else if (text[i] == '{') {
      ++depth;
    } else if (text[i] == '}' && --depth == 0) {
      return Box{start, i + 1, text.substr(open + 1, i - open - 1)};
    }
  }
  return Box{start, reach, text.substr(open + 1, reach - open - 1)};  // never closed
}

/// Nothing but signs and a conjunction between two boxes: they are one answer.
bool joins(std::string_view between) {
  if (between.size() > 20) return false;
  std::string letters;
  for (char c : between) {
    if (is_letter(c))
      letters += c;
    else if (std::string_view(" \n$,;\\()[]&").find(c) == npos)
      return false;
  }
  return letters.empty() || letters == "and" || letters == "or";
}

/// The last box and those before it that belong to the same answer.
std::string joined_boxes(std::string_view text, const Box& last) {
  std::string answer(last.content);
  Box next = last;
  for (int more = 0; more < 7; ++more) {
    const std::optional<Box> before = last_box(text, next.start);
    if (!before || before->end > next.start) break;
    if (!joins(text.substr(before->end, next.start - before->end))) break;
    if (before->content != next.content) answer = std::string(before->content) + "," + answer;
    next = *before;
  }
  return answer;
}

// Short words that could be read as products of letters.
constexpr std::string_view kWords[] = {
    "so",  "is",  "it",  "we",  "to",  "of",  "an",  "as",  "at",  "be",  "by",
    "do",  "he",  "if",  "my",  "no",  "on",  "up",  "us",  "the", "for", "not",
    "are", "was", "get", "got", "can", "has", "its", "let", "now", "one", "two",
    "six", "ten", "all", "any", "but", "per", "out", "our", "sum", "set", "yes",
    "you", "how", "who", "may", "new", "use", "add", "big", "hmm", "ok",  "then"};

/// True for text that holds words: a known short one, or two runs of letters side by side.
bool is_prose(std::string_view text) {
  bool after_run = false;
  for (size_t i = 0; i < text.size();) {
    if (text[i] == '\\') {
      i += 2;
      while (i < text.size() && is_letter(text[i - 1]) && is_letter(text[i])) ++i;
      after_run = false;
    } else if (is_letter(text[i])) {
      std::string run;
      while (i < text.size() && is_letter(text[i]))
        run += static_cast<char>(std::tolower(static_cast<unsigned char>(text[i++])));
      if (std::find(std::begin(kWords), std::end(kWords), run) != std::end(kWords)) return true;
      const bool function = run == "sin" || run == "cos" || run == "tan" || run == "log" ||
                            run == "ln" || run == "sqrt" || run == "pi" || run == "and" ||
                            run == "or";
      if (after_run && run.size() > 1 && !function) return true;
      after_run = run.size() > 1 && !function;
    } else {
      after_run &= is_space(text[i]);
      ++i;
    }
  }
  return false;
}

size_t last_phrase(std::string_view lower, std::string_view phrase, size_t& end) {
  const size_t at = lower.rfind(phrase);
  if (at != npos) end = at + phrase.size();
  return at;
}

/// Where the text after "final answer ... is" begins, and where the phrase does.
size_t final_answer(std::string_view lower, size_t& start) {
  size_t end = 0;
  start = last_phrase(lower, "final answer", end);
  if (start == npos) return npos;
  const std::string_view reach = lower.substr(end, 104);
  size_t is = reach.find(" is");
  if (is != npos) return end + is + 3;
  return !reach.empty() && reach[0] == ':' ? end + 1 : npos;
}

size_t answer_phrase(std::string_view lower) {
  size_t end = 0, best = npos;
  if (last_phrase(lower, "####", end) != npos) best = end;
  for (std::string_view phrase : {"answer:", "answer is", "answer"})
    if (last_phrase(lower, phrase, end) != npos && (best == npos || end > best)) return end;
  return best;
}

/// The text up to the end of its sentence or line.
std::string_view sentence(std::string_view text) {
  text = text.substr(0, kSentence);
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\n') return text.substr(0, i);
    if (text[i] == '.' && i + 1 < text.size() && is_space(text[i + 1])) return text.substr(0, i);
  }
  return text;
}

/// The formulas that start at `at` and follow one another by commas or `and`, as one list.
std::string formulas(std::string_view text, size_t at, Work& work) {
  Formula formula = formula_at(text, at, work);
  std::string answer(formula.content);
  for (int more = 0; more < 7; ++more) {
    size_t next = formula.end;
    while (next < text.size() && next < formula.end + 10 && text[next] != '$' && text[next] != '\\')
      ++next;
    if (next >= text.size() || next == formula.end ||
        !joins(text.substr(formula.end, next - formula.end)))
      break;
    const Formula following = formula_at(text, next, work);
    if (following.content.empty()) break;
    answer += "," + std::string(following.content);
    formula = following;
  }
  // $50$%
  std::string_view rest = text.substr(std::min(formula.end, text.size()), 10);
  rest = trim(rest);
  if (rest.substr(0, 1) == "%" || rest.substr(0, 2) == "\\%" || rest.substr(0, 7) == "percent")
    answer += "%";
  return answer;
}

void after_phrase(std::string_view text, std::vector<Candidate>& found, Work& work) {
  size_t skip = 0;
  while (skip < text.size() && (is_space(text[skip]) || text[skip] == ':' || text[skip] == '*'))
    ++skip;
  text = text.substr(skip);
  const size_t reach = std::min(text.size(), kPhraseReach);
  for (size_t i = 0; i < reach; ++i) {
    if (formula_at(text, i, work).content.empty()) continue;
    found.push_back({formulas(text, i, work), true});
    return;
  }
  std::string_view words = trim(sentence(text));
  while (!words.empty() && (words.back() == '*' || words.back() == '"')) words.remove_suffix(1);
  if (!words.empty()) found.push_back({std::string(words), true, is_prose(words)});
  for (size_t i = 0; i < words.size(); ++i) {
    const std::string_view plain = plain_at(words, i, work);
    if (plain.empty()) continue;
    found.push_back({std::string(plain), false});
    return;
  }
}

/// The last formulas and plain numbers, the last one first. Only the end of a long text is read,
/// from the start of a line where there is one.
void last_expressions(std::string_view text, std::vector<Candidate>& found, Work& work) {
  struct Piece {
    size_t at;
    std::string_view plain;  // empty for a formula
  };
  if (text.size() > kTail) {
    text = text.substr(text.size() - kTail);
    const size_t line = text.find('\n');
    if (line < kTail / 2) text = text.substr(line + 1);
  }
  std::deque<Piece> last;
  for (size_t i = 0; i < text.size();) {
    const Formula formula = formula_at(text, i, work);
    const std::string_view plain =
        formula.content.empty() ? plain_at(text, i, work) : std::string_view{};
    const size_t end = formula.content.empty() ? i + plain.size() : formula.end;
    if (end > i) {
      last.push_back({i, plain});
      if (last.size() > kMaxCandidates) last.pop_front();
    }
    i = std::max(end, i + 1);
  }
  for (auto piece = last.rbegin(); piece != last.rend(); ++piece)
    found.push_back(
        {piece->plain.empty() ? formulas(text, piece->at, work) : std::string(piece->plain),
         false});
}

}  // namespace

Formula formula_at(std::string_view text, size_t at, Work& work) {
  const auto closed_by = [&](std::string_view close, size_t open_length, bool one_line) -> Formula {
    // Bounded reach: an opening sign without its closing one must not cost the rest of the text.
    const std::string_view reach = text.substr(at + open_length, kMaxExpressionBytes);
    for (size_t i = 0; i + close.size() <= reach.size(); ++i) {
      work.spend(1);
      if (one_line && reach[i] == '\n') break;
      if (reach.substr(i, close.size()) == close)
        return {reach.substr(0, i), at + open_length + i + close.size()};
      if (reach[i] == '\\') ++i;
    }
    return {};
  };
  if (at >= text.size()) return {};
  const bool escaped = at > 0 && text[at - 1] == '\\';
  if (text[at] == '$' && !escaped) {
    if (text.substr(at, 2) == "$$") return closed_by("$$", 2, false);
    if (at > 0 && is_digit(text[at - 1])) return {};
    return closed_by("$", 1, true);
  }
  if (text[at] == '\\' && !escaped) {
    if (text.substr(at, 2) == "\\[") return closed_by("\\]", 2, false);
    if (text.substr(at, 2) == "\\(") return closed_by("\\)", 2, true);
  }
  return {};
}

std::string_view plain_at(std::string_view text, size_t at, Work& work) {
  if (at >= text.size()) return {};
  const char before = at > 0 ? text[at - 1] : ' ';
  if (!is_space(before) && std::string_view("=($*:,[\"'>~").find(before) == npos) return {};
  size_t end = at;
  while (end < std::min(text.size(), at + 8) && std::string_view("+-([").find(text[end]) != npos)
    ++end;
  if (end < text.size() && text[end] == '.') ++end;
  if (end >= text.size() || !is_digit(text[end])) return {};
  const auto is_operator = [](char c) { return std::string_view("+-*/^").find(c) != npos; };
  bool in_brackets = text[at] == '(' || text[at] == '[';
  const size_t limit = std::min(text.size(), at + 200);
  for (; end < limit; ++end) {
    const char c = text[end];
    if (is_digit(c) || is_operator(c) || std::string_view(".,()[]%!").find(c) != npos) continue;
    if (c != ' ') break;
    const char next = end + 1 < limit ? text[end + 1] : ' ';
    const bool binds =
        is_operator(text[end - 1]) || (is_operator(next) && next != '*') || next == '%';
    if (!binds && !(in_brackets && text[end - 1] == ',')) break;
  }
  std::string_view found = text.substr(at, end - at);
  work.spend(static_cast<int64_t>(2 * found.size()));
  int opened = 0;
  for (char c : found) opened += (c == '(' || c == '[') - (c == ')' || c == ']');
  while (!found.empty()) {
    const bool closes = found.back() == ')' || found.back() == ']';
    if (std::string_view(" .,*+-/^").find(found.back()) == npos && !(closes && opened < 0)) break;
    opened += closes;
    found.remove_suffix(1);
  }
  if (opened != 0) {  // "(5 apples": the number alone
    const size_t digit = found.find_first_of("0123456789.");
    size_t stop = digit;
    while (stop < found.size() && (is_digit(found[stop]) || found[stop] == '.')) ++stop;
    return digit == at ? found.substr(0, stop) : std::string_view{};
  }
  return found;
}

std::vector<Candidate> extract(std::string_view text, Work& work) {
  work.spend(static_cast<int64_t>(text.size() / 64));
  std::vector<Candidate> found;
  std::string lower(text);
  for (char& c : lower)
    if (c >= 'A' && c <= 'Z') c += 'a' - 'A';
  const std::optional<Box> box = last_box(text, text.size());
  size_t phrase_start = npos;
  const size_t final_end = final_answer(lower, phrase_start);
  if (final_end != npos && (!box || box->end <= phrase_start))
    after_phrase(text.substr(final_end), found, work);
  if (box) {
    found.push_back({joined_boxes(text, *box), true});
    return found;
  }
  const size_t phrase = answer_phrase(lower);
  if (phrase != npos) after_phrase(text.substr(phrase), found, work);
  const std::string_view whole = trim(text);
  if (!whole.empty() && whole.size() <= kWholeText)
    found.push_back({std::string(whole), true, is_prose(whole)});
  last_expressions(text, found, work);
  return found;
}

}  // namespace cohort::rl::math
