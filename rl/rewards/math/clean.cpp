// One spelling for what is written in many ways. Plain scans over at most kMaxExpressionBytes: each
// pass is linear.
#include <algorithm>
#include <array>
#include <cctype>

#include "rl/rewards/math/expression.h"

namespace cohort::rl::math {
namespace {

struct Spelling {
  std::string_view from, to;
};

// In order: a longer spelling stands before its prefix.
constexpr Spelling kSpellings[] = {
    {"−", "-"},          {"–", "-"},          {"×", "\\times "}, {"÷", "/"},
    {"·", "\\cdot "},    {"⋅", "\\cdot "},    {"π", "\\pi "},    {"√", " sqrt "},
    {"∞", "\\infty "},   {"°", "^\\circ "},   {"≤", "\\le "},    {"≥", "\\ge "},
    {"≠", "\\ne "},      {"²", "^2 "},        {"³", "^3 "},      {"½", "\\frac12 "},
    {"¼", "\\frac14 "},  {"¾", "\\frac34 "},  {"∪", "\\cup "},   {"∅", "\\emptyset "},
    {"±", "\\pm "},      {"∈", "\\in "},      {"€", "$"},        {"£", "$"},
    {"\u00a0", " "},     {"\u202f", " "},     {"\u2009", " "},   {"\\$", "$"},
    {"\\%", "%"},        {"\\!", ""},         {"{,}", "\x01"},   {"\\,", " "},
    {"\\;", " "},        {"\\:", " "},        {"\\ ", " "},      {"~", " "},
    {"\\lbrace", "\\{"}, {"\\rbrace", "\\}"}, {"\\lbrack", "["}, {"\\rbrack", "]"},
    {"\\lvert", "|"},    {"\\rvert", "|"},    {"\\vert", "|"},   {"\n", " "},
    {"\t", " "},         {"\r", " "}};

// Commands that change how an answer looks and not what it says.
constexpr std::string_view kLooks[] = {
    "left",         "right",     "big",   "bigl",  "bigr",   "Big",   "Bigl",
    "Bigr",         "bigg",      "biggl", "biggr", "Bigg",   "Biggl", "Biggr",
    "displaystyle", "textstyle", "quad",  "qquad", "limits", "mleft", "mright"};

constexpr std::string_view kUnits[] = {
    "cm",     "mm",     "km",       "dm",     "kg",     "mg",       "lb",     "lbs",     "oz",
    "ft",     "in",     "inch",     "inches", "feet",   "foot",     "yard",   "yards",   "mile",
    "miles",  "mph",    "kmh",      "meter",  "meters", "metre",    "metres", "second",  "seconds",
    "sec",    "minute", "minutes",  "min",    "hour",   "hours",    "hr",     "hrs",     "day",
    "days",   "week",   "weeks",    "month",  "months", "year",     "years",  "degree",  "degrees",
    "deg",    "dollar", "dollars",  "cent",   "cents",  "euro",     "euros",  "unit",    "units",
    "square", "cubic",  "sq",       "gram",   "grams",  "liter",    "liters", "litre",   "litres",
    "ml",     "gallon", "gallons",  "ohm",    "ohms",   "hectare",  "acre",   "acres",   "apple",
    "apples", "people", "students", "men",    "women",  "children", "rad",    "radians", "rs",
    "rupees"};
constexpr std::string_view kLetterUnits = "mgslhtdc";

bool is_letter(char c) { return std::isalpha(static_cast<unsigned char>(c)); }
bool is_digit(char c) { return c >= '0' && c <= '9'; }

std::string_view trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\n')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\n')) text.remove_suffix(1);
  return text;
}

/// The letters that follow a backslash at `at`.
std::string_view command_at(std::string_view text, size_t at) {
  size_t end = at + 1;
  while (end < text.size() && is_letter(text[end])) ++end;
  return text.substr(at + 1, end - at - 1);
}

/// End (one past the closing brace) of the brace group that opens at `open`, or npos.
size_t group_end(std::string_view text, size_t open) {
  int depth = 0;
  for (size_t i = open; i < text.size(); ++i) {
    if (text[i] == '\\') {
      ++i;
    } else if (text[i] == '{') {
      ++depth;
    } else if (text[i] == '}' && --depth == 0) {
      return i + 1;
    }
  }
  return std::string_view::npos;
}

std::string spelled(std::string_view text) {
  std::string result;
  for (size_t i = 0; i < text.size();) {
    if (text[i] == '\\' && i + 1 < text.size() && is_letter(text[i + 1])) {
      const std::string_view command = command_at(text, i);
      if (std::find(std::begin(kLooks), std::end(kLooks), command) != std::end(kLooks)) {
        i += 1 + command.size();
        if (i < text.size() && text[i] == '.') ++i;  // the invisible bracket of \right.
        continue;
      }
    }
    if (text[i] == '\\' &&
        text.substr(i, 2) == "\\\\") {  // a row's end; no command starts at its second
      result += "\\\\";
      i += 2;
      continue;
    }
    const Spelling* found = nullptr;
    for (const Spelling& spelling : kSpellings) {
      if (text.substr(i, spelling.from.size()) != spelling.from) continue;
      const bool is_command = spelling.from.size() > 2 && spelling.from[0] == '\\';
      if (is_command && command_at(text, i).size() + 1 != spelling.from.size()) continue;
      found = &spelling;
      break;
    }
    if (found) {
      result += found->to;
      i += found->from.size();
    } else {
      result += text[i++];
    }
  }
  return result;
}

/// What stands for a \text{...} inside an answer: a comma for `and`, nothing for a space, else
/// itself.
std::string meaning_of_text(std::string_view inner, std::string_view whole) {
  const std::string_view word = trim(inner);
  if (word.empty()) return " ";
  if (word == "and" || word == "or" || word == ", and" || word == ", or") return ",";
  if (word == "percent" || word == "%") return "%";
  return std::string(whole);
}

constexpr std::string_view kTextCommands[] = {
    "text", "textbf", "textit", "textrm", "textnormal", "mbox", "mathrm", "mathbf", "mathit", "rm"};

bool is_text_command(std::string_view name) {
  return std::find(std::begin(kTextCommands), std::end(kTextCommands), name) !=
         std::end(kTextCommands);
}

/// Words of the plain notation that mean signs: and, or, percent; and the dollar signs, which mean
/// nothing once the answer is cut out.
std::string words_resolved(std::string_view text) {
  std::string result;
  for (size_t i = 0; i < text.size();) {
    if (text[i] == '$') {
      ++i;
    } else if (text[i] == '\\' && is_text_command(command_at(text, i))) {
      size_t open = i + 1 + command_at(text, i).size();
      while (open < text.size() && text[open] == ' ') ++open;
      const size_t end =
          open < text.size() && text[open] == '{' ? group_end(text, open) : std::string_view::npos;
      if (end == std::string_view::npos) {
        result += text[i++];
        continue;
      }
      const std::string_view inner = text.substr(open + 1, end - open - 2);
      result += meaning_of_text(inner, "\\text{" + std::string(inner) + "}");
      i = end;
    } else if (text[i] == '\\') {
      const size_t length = std::max<size_t>(2, 1 + command_at(text, i).size());
      result += text.substr(i, length);
      i += length;
    } else if (is_letter(text[i])) {
      size_t end = i;
      while (end < text.size() && is_letter(text[end])) ++end;
      const std::string_view word = text.substr(i, end - i);
      if (word == "and" || word == "or")
        result += ',';
      else if (word == "percent" || word == "percentage" || word == "pct")
        result += '%';
      else
        result += word;
      i = end;
    } else {
      result += text[i++];
    }
  }
  return result;
}

bool ends_with(std::string_view text, std::string_view tail) {
  return text.size() >= tail.size() && text.substr(text.size() - tail.size()) == tail;
}

/// Cuts ^2, ^{2} or ^3 off the end: the power of a unit.
std::string_view without_power(std::string_view text) {
  for (std::string_view power : {"^2", "^3", "^{2}", "^{3}"})
    if (ends_with(text, power)) return trim(text.substr(0, text.size() - power.size()));
  return text;
}

/// The text before one unit at its end, or the text itself.
std::string_view without_last_unit(std::string_view text, bool single_letters) {
  for (std::string_view degree : {"^\\circ", "^{\\circ}", "^{\\circ }", "\\degree", "\\circ", "$"})
    if (ends_with(text, degree)) return trim(text.substr(0, text.size() - degree.size()));
  const std::string_view base = without_power(text);
  if (ends_with(base, "}")) {
    const size_t start = base.rfind("\\text{");
    if (start != std::string_view::npos && group_end(base, start + 5) == base.size())
      return trim(base.substr(0, start));
    return text;
  }
  size_t start = base.size();
  while (start > 0 && is_letter(base[start - 1])) --start;
  const std::string_view word = base.substr(start);
  if (word.empty() || start == 0) return text;
  const char before = base[start - 1];
  const bool known = std::find(std::begin(kUnits), std::end(kUnits), word) != std::end(kUnits);
  if (known && (is_digit(before) || before == '}' || before == ' ' || before == '/'))
    return trim(base.substr(0, before == '/' ? start - 1 : start));
  if (single_letters && word.size() == 1 && kLetterUnits.find(word[0]) != std::string_view::npos &&
      (before == ' ' || is_digit(before)))
    return trim(base.substr(0, start));
  return text;
}

}  // namespace

std::string clean(std::string_view text) {
  std::string result = words_resolved(spelled(text));
  // "1, and 2" has become "1,, 2".
  std::string merged;
  for (char c : result) {
    if (c == ',') {
      while (!merged.empty() && merged.back() == ' ') merged.pop_back();
      if (!merged.empty() && merged.back() == ',') continue;
    }
    merged += c;
  }
  std::string_view trimmed = trim(merged);
  while (!trimmed.empty() &&
         std::string_view(".,;:").find(trimmed.back()) != std::string_view::npos)
    trimmed = trim(trimmed.substr(0, trimmed.size() - 1));
  return std::string(trimmed);
}

std::string without_units(std::string_view cleaned, bool single_letters) {
  std::string_view text = trim(cleaned);
  for (int round = 0; round < 3; ++round) {  // "square cm", "^\circ \text{C}"
    const std::string_view shorter = without_last_unit(text, single_letters);
    if (shorter.empty() || shorter.size() == text.size()) break;
    text = shorter;
  }
  return std::string(text);
}

std::string as_words(std::string_view text) {
  std::string words;
  bool mathematics = false;
  const std::string cleaned = clean(text.substr(0, kMaxExpressionBytes));
  for (size_t i = 0; i < cleaned.size(); ++i) {
    const char c = cleaned[i];
    if (c == '\\' && cleaned.compare(i, 6, "\\text{") == 0) {
      i += 5;
    } else if (c == ' ' || c == '{' || c == '}' || c == '*' || c == '"') {
      continue;
    } else {
      mathematics |= !is_letter(c) && static_cast<unsigned char>(c) < 128 && c != '(' && c != ')';
      words += c;
    }
  }
  if (words.size() > 2 && words.front() == '(' && words.back() == ')' && !mathematics)
    words = words.substr(1, words.size() - 2);
  if (!mathematics)
    for (char& c : words) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return words;
}

}  // namespace cohort::rl::math
