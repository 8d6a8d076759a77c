// The leaves of the grammar: numbers, names, brackets and LaTeX commands.
#include <algorithm>
#include <cctype>
#include <utility>

#include "rl/rewards/math/parser.h"

namespace cohort::rl::math {
namespace {

bool is_letter(char c) { return std::isalpha(static_cast<unsigned char>(c)); }
bool is_digit(char c) { return c >= '0' && c <= '9'; }

constexpr std::string_view kFunctions[] = {"arcsin",
                                           "arccos",
                                           "arctan",
                                           "asin",
                                           "acos",
                                           "atan",
                                           "sinh",
                                           "cosh",
                                           "tanh",
                                           "sin",
                                           "cos",
                                           "tan",
                                           "cot",
                                           "sec",
                                           "csc",
                                           "exp"};
constexpr std::string_view kSymbols[] = {
    "alpha",    "beta",    "gamma", "delta",  "epsilon", "varepsilon", "zeta",  "eta",   "theta",
    "vartheta", "iota",    "kappa", "lambda", "mu",      "nu",         "xi",    "rho",   "sigma",
    "tau",      "upsilon", "phi",   "varphi", "chi",     "psi",        "omega", "Gamma", "Delta",
    "Theta",    "Lambda",  "Xi",    "Sigma",  "Phi",     "Psi",        "Omega", "ell",   "hbar"};

bool is_function(std::string_view name) {
  return std::find(std::begin(kFunctions), std::end(kFunctions), name) != std::end(kFunctions);
}

/// Keeps a flag of the parser for one scope.
struct Flag {
  Flag(bool& flag, bool value) : flag_(flag), before_(flag) { flag = value; }
  ~Flag() { flag_ = before_; }
  bool& flag_;
  bool before_;
};

}  // namespace

int Parser::atom() {
  const Level level(*this);
  skip_spaces();
  const char c = peek();
  if (is_digit(c) || (c == '.' && is_digit(peek(1)))) return number();
  if (is_letter(c)) return name();
  switch (c) {
    case '(':
    case '[':
      return bracketed(c);
    case '{':
      return group();
    case '|':
      return absolute();
    case '\\':
      return peek(1) == '{' ? set() : command();
    default:
      throw Unparsed{};
  }
}

/// The digits before the point, thousands separators dropped.
std::string Parser::integer_digits() {
  std::string digits;
  while (is_digit(peek())) digits += text_[place_++];
  const size_t lead = digits.size();
  while (true) {
    // "\x01" is the braced comma {,} which only ever separates thousands.
    const char c = peek();
    const bool separator = c == '\x01' || ((c == ',' || c == ' ') && !(in_bracket_ && c == ','));
    if (!separator || lead == 0 || lead > 3 || (c == ' ' && digits[0] == '0')) break;
    if (!is_digit(peek(1)) || !is_digit(peek(2)) || !is_digit(peek(3)) || is_digit(peek(4))) break;
    digits += text_.substr(place_ + 1, 3);
    place_ += 4;
  }
  return digits;
}

int Parser::number() {
  std::string digits = integer_digits(), fraction;
  bool decimal = false;
  if (peek() == '.' && (is_digit(peek(1)) || text_.substr(place_ + 1, 9) == "\\overline")) {
    ++place_;
    decimal = true;
    while (is_digit(peek())) fraction += text_[place_++];
    if (at_command("overline")) return repeating(digits, fraction);
  } else if (peek() == '.' && !digits.empty() && !is_letter(peek(1))) {
    ++place_;  // "5."
  }
  int64_t exponent = -static_cast<int64_t>(fraction.size());
  const size_t sign = peek(1) == '-' || peek(1) == '+' ? 1 : 0;
  if ((peek() == 'e' || peek() == 'E') && is_digit(peek(1 + sign)) && !is_digit(peek(5 + sign))) {
    const bool minus = peek(1) == '-';
    place_ += 1 + sign;
    int64_t written = 0;
    while (is_digit(peek()) && written < 100'000) written = written * 10 + (text_[place_++] - '0');
    exponent += minus ? -written : written;
  }
  work_.spend(static_cast<int64_t>(digits.size() + fraction.size()));
  Rational value(BigInt::from_digits("0" + digits + fraction, work_), BigInt(1), work_);
  if (exponent != 0) value = multiply(value, math::power(Rational(10), exponent, work_), work_);
  return add_number(std::move(value), decimal);
}

/// 0.1\overline{6} = (16 - 1) / 90.
int Parser::repeating(const std::string& integer, const std::string& fraction) {
  accept_command("overline");
  expect("{");
  std::string period;
  while (is_digit(peek())) period += text_[place_++];
  expect("}");
  if (period.empty()) throw Unparsed{};
  const BigInt all = BigInt::from_digits("0" + integer + fraction + period, work_);
  const BigInt lead = BigInt::from_digits("0" + integer + fraction, work_);
  const BigInt nines = subtract(math::power(BigInt(10), period.size(), work_), BigInt(1), work_);
  const BigInt shift = math::power(BigInt(10), fraction.size(), work_);
  return add_number(Rational(subtract(all, lead, work_), multiply(nines, shift, work_), work_),
                    false);
}

int Parser::name() {
  const std::string_view word = letters_at(place_);
  const auto take = [&](size_t count) { place_ += count; };
  if (word == "pi") return take(2), add_node(Op::kPi);
  if (word == "inf" || word == "infinity" || word == "infty" || word == "oo")
    return take(word.size()), add_node(Op::kInfinity);
  if (word == "sqrt") {
    take(4);
    const int radicand = atom();
    return add_node(Op::kRoot, {radicand, add_number(2)});
  }
  if (word == "ln" || word == "log") return take(word.size()), logarithm(word == "ln");
  if (word == "abs") return take(3), add_node(Op::kAbsolute, {atom()});
  for (std::string_view known : kFunctions)
    if (word == known || (word.substr(0, known.size()) == known && word.size() == known.size() + 1))
      return take(known.size()), function(known);
  if (word.size() >= 4) throw Unparsed{};  // a word, not a product of letters
  const char letter = text_[place_++];
  if (peek() == '_') return subscripted(std::string(1, letter));
  if (letter == 'e') return add_node(Op::kEuler);
  if (letter == 'i') return add_node(Op::kImaginary);
  return add_node(Op::kVariable, {}, std::string(1, letter));
}

int Parser::subscripted(std::string name) {
  if (peek() == '_') {
    name += text_[place_++];
    if (peek() == '{') {
      const size_t end = text_.find('}', place_);
      if (end == std::string_view::npos) throw Unparsed{};
      name += text_.substr(place_ + 1, end - place_ - 1);
      place_ = end + 1;
    } else if (std::isalnum(static_cast<unsigned char>(peek()))) {
      name += text_[place_++];
    } else {
      throw Unparsed{};
    }
  }
  return add_node(Op::kVariable, {}, std::move(name));
}

/// (a), (a, b), [a, b): grouping with one element between round brackets, else a sequence.
int Parser::bracketed(char open) {
  ++place_;
  const Flag commas(in_bracket_, true), bars(in_absolute_, false);
  if (accept(open == '(' ? ")" : "]"))
    return add_node(Op::kSequence, {}, open == '(' ? "()" : "[]");
  std::vector<int> items{relation()};
  while (accept(",") || accept(";")) items.push_back(relation());
  skip_spaces();
  const char close = peek();
  if (close != ')' && close != ']') throw Unparsed{};
  ++place_;
  if (items.size() == 1 && ((open == '(' && close == ')') || (open == '[' && close == ']')))
    return items[0];
  return add_node(Op::kSequence, std::move(items), {open, close});
}

int Parser::set() {
  place_ += 2;
  const Flag commas(in_bracket_, true), bars(in_absolute_, false);
  std::vector<int> items;
  if (accept("\\}")) return add_node(Op::kSet);
  do items.push_back(relation());
  while (accept(",") || accept(";"));
  expect("\\}");
  return add_node(Op::kSet, std::move(items));
}

int Parser::absolute() {
  ++place_;
  int inside;
  {
    const Flag bars(in_absolute_, true);
    inside = sum();
  }
  expect("|");
  return add_node(Op::kAbsolute, {inside});
}

int Parser::between(std::string_view closing, Op op) {
  const int inside = sum();
  if (!accept_command(closing)) throw Unparsed{};
  return add_node(op, {inside});
}

int Parser::group() {
  ++place_;
  const Flag bars(in_absolute_, false);
  const int inside = list();
  expect("}");
  return inside;
}

/// What LaTeX takes as the argument of a command: a group, one digit, one letter or one command. A
/// round bracket is taken whole, as plain notation means it.
int Parser::argument() {
  const Level level(*this);
  skip_spaces();
  const char c = peek();
  if (c == '{') return group();
  if (is_digit(c)) {
    ++place_;
    return add_number(c - '0');
  }
  if (is_letter(c)) {
    ++place_;
    return c == 'e' ? add_node(Op::kEuler) : add_node(Op::kVariable, {}, std::string(1, c));
  }
  return atom();
}

int Parser::root() {
  skip_spaces();
  int index = -1;
  if (peek() == '[') {
    ++place_;
    index = sum();
    expect("]");
  }
  const int radicand = argument();
  return add_node(Op::kRoot, {radicand, index < 0 ? add_number(2) : index});
}

int Parser::command() {
  const std::string name(letters_at(place_ + 1));
  if (name.empty()) throw Unparsed{};
  place_ += 1 + name.size();
  if (name == "frac" || name == "dfrac" || name == "tfrac" || name == "cfrac") {
    const int top = argument(), bottom = argument();
    return add_node(Op::kMultiply, {top, add_node(Op::kInverse, {bottom})});
  }
  if (name == "sqrt") return root();
  if (name == "pi") return add_node(Op::kPi);
  if (name == "infty") return add_node(Op::kInfinity);
  if (name == "emptyset" || name == "varnothing") return add_node(Op::kSet);
  if (name == "ln" || name == "log" || name == "lg") return logarithm(name == "ln");
  if (name == "binom" || name == "dbinom" || name == "tbinom") {
    const int n = argument(), k = argument();
    return add_node(Op::kBinomial, {n, k});
  }
  if (name == "lfloor") return between("rfloor", Op::kFloor);
  if (name == "lceil") return between("rceil", Op::kCeiling);
  if (name == "boxed" || name == "fbox") return argument();
  if (name == "begin") return matrix();
  if (name == "operatorname") {
    expect("{");
    const std::string inner(letters_at(place_));
    place_ += inner.size();
    expect("}");
    if (is_function(inner)) return function(inner);
    throw Unparsed{};
  }
  if (name == "mathbb") {
    const int letter = argument();
    return add_node(Op::kVariable, {}, "\\mathbb " + at(letter).name);
  }
  if (is_function(name)) return function(name);
  if (std::find(std::begin(kSymbols), std::end(kSymbols), name) != std::end(kSymbols))
    return subscripted("\\" + name);
  throw Unparsed{};
}

/// sin x, sin(x), sin^2 x, sin 2x: without brackets the argument is what stands side by side.
int Parser::function(std::string_view name) {
  int raised = -1;
  if (accept("^")) raised = exponent();
  const int inside = function_argument();
  std::string used(name);
  if (raised >= 0 && at(raised).op == Op::kNumber && at(raised).value == Rational(-1)) {
    used = "arc" + used;  // sin^{-1}
    raised = -1;
    if (!is_function(used)) throw Unparsed{};
  }
  if (used.size() == 4 && used[0] == 'a' && used != "arc") used = "arc" + used.substr(1);  // asin
  const int value = used == "exp" ? add_node(Op::kPower, {add_node(Op::kEuler), inside})
                                  : add_node(Op::kFunction, {inside}, used);
  return raised < 0 ? value : add_node(Op::kPower, {value, raised});
}

int Parser::function_argument() {
  const Level level(*this);
  skip_spaces();
  if (peek() == '(' || peek() == '[' || peek() == '{') return atom();
  std::vector<int> factors{power()};
  while (starts_factor()) {
    const std::string_view next = peek() == '\\' ? letters_at(place_ + 1) : letters_at(place_);
    if (is_function(next) || next == "ln" || next == "log") break;
    factors.push_back(power());
  }
  return factors.size() == 1 ? factors[0] : add_node(Op::kMultiply, std::move(factors));
}

/// log is to base 10 where none is written, as the reference has it.
int Parser::logarithm(bool natural) {
  int base = -1, raised = -1;
  for (int round = 0; round < 2; ++round) {
    if (base < 0 && accept("_")) base = argument();
    if (raised < 0 && accept("^")) raised = exponent();
  }
  const int inside = function_argument();
  if (base < 0) base = natural ? add_node(Op::kEuler) : add_number(10);
  const int value = add_node(Op::kLog, {inside, base});
  return raised < 0 ? value : add_node(Op::kPower, {value, raised});
}

int Parser::matrix() {
  expect("{");
  const std::string kind(letters_at(place_));
  place_ += kind.size();
  expect("}");
  if (kind != "matrix" && kind != "pmatrix" && kind != "bmatrix") throw Unparsed{};
  std::vector<int> rows;
  while (!accept_command("end")) {
    std::vector<int> row{sum()};
    while (accept("&")) row.push_back(sum());
    rows.push_back(add_node(Op::kSequence, std::move(row), "[]"));
    accept("\\\\");
  }
  expect("{" + kind + "}");
  return add_node(Op::kMatrix, std::move(rows));
}

}  // namespace cohort::rl::math
