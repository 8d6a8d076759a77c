#include "rl/rewards/math/parser.h"

#include <algorithm>
#include <cctype>
#include <utility>

namespace cohort::rl::math {
namespace {

bool is_letter(char c) { return std::isalpha(static_cast<unsigned char>(c)); }

struct Sign {
  std::string_view text;
  char code;
};
constexpr Sign kRelationSigns[] = {{"<=", 'l'},
                                   {">=", 'g'},
                                   {"!=", '#'},
                                   {"==", '='},
                                   {":=", '='},
                                   {"=", '='},
                                   {"<", '<'},
                                   {">", '>'}};
constexpr Sign kRelationCommands[] = {{"le", 'l'},
                                      {"leq", 'l'},
                                      {"leqslant", 'l'},
                                      {"ge", 'g'},
                                      {"geq", 'g'},
                                      {"geqslant", 'g'},
                                      {"ne", '#'},
                                      {"neq", '#'},
                                      {"lt", '<'},
                                      {"gt", '>'},
                                      {"in", '='},
                                      {"approx", '='},
                                      {"equiv", '='}};
constexpr std::string_view kTimes[] = {"times", "cdot", "ast", "cdotp"};

/// Every `\pm` as + and `\mp` as -, or the other way round.
std::string with_signs(std::string_view text, char plus_minus, char minus_plus) {
  std::string result;
  for (size_t i = 0; i < text.size();) {
    const std::string_view three = text.substr(i, 3);
    const bool ends = i + 3 >= text.size() || !is_letter(text[i + 3]);
    if (ends && (three == "\\pm" || three == "\\mp")) {
      result += three == "\\pm" ? plus_minus : minus_plus;
      i += 3;
    } else {
      result += text[i++];
    }
  }
  return result;
}

}  // namespace

Parser::Level::Level(Parser& parser) : parser_(parser) {
  if (++parser.depth_ > kMaxDepth) {
    --parser.depth_;
    throw Unparsed{};
  }
  parser.work_.spend(10);
}

void Parser::skip_spaces() {
  while (place_ < text_.size() && text_[place_] == ' ') ++place_;
}

bool Parser::done() {
  skip_spaces();
  return place_ >= text_.size();
}

char Parser::peek(size_t ahead) const {
  return place_ + ahead < text_.size() ? text_[place_ + ahead] : '\0';
}

bool Parser::accept(std::string_view sign) {
  skip_spaces();
  if (text_.substr(place_, sign.size()) != sign) return false;
  place_ += sign.size();
  return true;
}

std::string_view Parser::letters_at(size_t start) const {
  size_t end = start;
  while (end < text_.size() && is_letter(text_[end])) ++end;
  return text_.substr(std::min(start, text_.size()), end - start);
}

bool Parser::at_command(std::string_view name) const {
  return peek() == '\\' && letters_at(place_ + 1) == name;
}

bool Parser::accept_command(std::string_view name) {
  skip_spaces();
  if (!at_command(name)) return false;
  place_ += 1 + name.size();
  return true;
}

void Parser::expect(std::string_view sign) {
  if (!accept(sign)) throw Unparsed{};
}

int Parser::add_node(Op op, std::vector<int> children, std::string name) {
  Node node;
  node.op = op;
  node.name = std::move(name);
  for (int child : children) node.depth = std::max(node.depth, at(child).depth + 1);
  if (node.depth > kMaxDepth) throw Unparsed{};
  work_.spend(20 + static_cast<int64_t>(children.size()));
  node.children = std::move(children);
  into_.nodes.push_back(std::move(node));
  return static_cast<int>(into_.nodes.size()) - 1;
}

int Parser::add_number(Rational value, bool decimal) {
  const int index = add_node(Op::kNumber);
  into_.nodes[index].value = std::move(value);
  into_.nodes[index].decimal = decimal;
  return index;
}

int Parser::negated(int child) {
  if (at(child).op == Op::kNumber) {
    const bool decimal = at(child).decimal;
    return add_number(at(child).value.negated(), decimal);
  }
  return add_node(Op::kNegate, {child});
}

int Parser::whole() {
  const int root = list();
  if (!done()) throw Unparsed{};
  return root;
}

int Parser::list() {
  const Level level(*this);
  std::vector<int> items{relation()};
  while (accept(",") || accept(";")) items.push_back(relation());
  return items.size() == 1 ? items[0] : add_node(Op::kList, std::move(items));
}

char Parser::relation_sign() {
  skip_spaces();
  for (const Sign& sign : kRelationSigns)
    if (accept(sign.text)) return sign.code;
  for (const Sign& sign : kRelationCommands)
    if (accept_command(sign.text)) return sign.code;
  return '\0';
}

int Parser::relation() {
  std::vector<int> sides{union_of_sets()};
  std::string signs;
  while (const char sign = relation_sign()) {
    signs += sign;
    sides.push_back(union_of_sets());
  }
  return signs.empty() ? sides[0] : add_node(Op::kRelation, std::move(sides), signs);
}

int Parser::union_of_sets() {
  std::vector<int> parts{sum()};
  while (accept_command("cup")) parts.push_back(sum());
  return parts.size() == 1 ? parts[0] : add_node(Op::kUnion, std::move(parts));
}

int Parser::sum() {
  const Level level(*this);
  std::vector<int> terms;
  bool minus = false;
  while (accept("+") || accept("-")) minus ^= text_[place_ - 1] == '-';
  while (true) {
    const int next = term();
    terms.push_back(minus ? negated(next) : next);
    minus = false;
    if (!accept("+") && !accept("-")) break;
    do minus ^= text_[place_ - 1] == '-';
    while (accept("+") || accept("-"));
  }
  return terms.size() == 1 ? terms[0] : add_node(Op::kAdd, std::move(terms));
}

bool Parser::times_sign() {
  skip_spaces();
  if (peek() == '*' && peek(1) != '*') return accept("*");
  return std::any_of(
      std::begin(kTimes), std::end(kTimes), [&](auto name) { return accept_command(name); });
}

bool Parser::divide_sign() {
  skip_spaces();
  if (peek() == ':' && peek(1) == '=') return false;
  return accept("/") || accept(":") || accept_command("div");
}

int Parser::term() {
  std::vector<int> factors{product()};
  while (true) {
    const bool times = times_sign();
    if (!times && !divide_sign()) break;
    bool minus = false;
    while (accept("-") || accept("+")) minus ^= text_[place_ - 1] == '-';
    int next = product();
    if (minus) next = negated(next);
    factors.push_back(times ? next : add_node(Op::kInverse, {next}));
  }
  return factors.size() == 1 ? factors[0] : add_node(Op::kMultiply, std::move(factors));
}

bool Parser::starts_factor() {
  skip_spaces();
  const char c = peek();
  if (is_letter(c) || c == '(' || c == '[' || c == '{') return true;
  if (c == '|') return !in_absolute_;
  if (c != '\\') return false;
  if (peek(1) == '{') return true;
  if (!is_letter(peek(1))) return false;
  const std::string_view name = letters_at(place_ + 1);
  const auto is_name = [&](const Sign& sign) { return sign.text == name; };
  if (std::any_of(std::begin(kRelationCommands), std::end(kRelationCommands), is_name))
    return false;
  if (std::find(std::begin(kTimes), std::end(kTimes), name) != std::end(kTimes)) return false;
  for (std::string_view other :
       {"div", "cup", "rfloor", "rceil", "rangle", "end", "circ", "degree"})
    if (name == other) return false;
  return true;
}

int Parser::product() {
  int first = power();
  // A mixed number: 1\frac{1}{2} is one and a half.
  const Node& leading = at(first);
  if (leading.op == Op::kNumber && leading.value.is_integer() && !leading.decimal &&
      (at_command("frac") || at_command("dfrac") || at_command("tfrac"))) {
    const int fraction = power();
    const Node& node = at(fraction);
    const bool plain = node.op == Op::kMultiply && node.children.size() == 2 &&
                       at(node.children[0]).op == Op::kNumber &&
                       at(node.children[1]).op == Op::kInverse &&
                       at(at(node.children[1]).children[0]).op == Op::kNumber;
    first = add_node(plain ? Op::kAdd : Op::kMultiply, {first, fraction});
  }
  std::vector<int> factors{first};
  while (starts_factor()) factors.push_back(power());
  return factors.size() == 1 ? factors[0] : add_node(Op::kMultiply, std::move(factors));
}

int Parser::power() {
  const Level level(*this);
  int base = atom();
  while (true) {
    skip_spaces();
    if (peek() == '!' && peek(1) != '=') {
      ++place_;
      base = add_node(Op::kFactorial, {base});
    } else if (accept("%")) {
      base = add_node(Op::kPercent, {base});
    } else if (accept("^") || accept("**")) {
      const size_t before = place_;
      const bool braced = accept("{");
      if (accept_command("circ")) {  // degrees are a unit
        if (braced) expect("}");
        continue;
      }
      place_ = before;
      base = add_node(Op::kPower, {base, exponent()});
    } else if (accept_command("degree")) {
      continue;
    } else {
      return base;
    }
  }
}

int Parser::exponent() {
  const Level level(*this);
  skip_spaces();
  bool minus = false;
  while (accept("-") || accept("+")) minus ^= text_[place_ - 1] == '-';
  int raised = atom();
  if (accept("^") || accept("**")) raised = add_node(Op::kPower, {raised, exponent()});
  return minus ? negated(raised) : raised;
}

Expression parse(std::string_view text, Work& work) {
  work.spend(static_cast<int64_t>(std::min(text.size(), kMaxExpressionBytes)) * 20);
  if (text.size() > kMaxExpressionBytes) throw Unparsed{};
  const std::string cleaned = clean(text);
  Expression result;
  const std::string upper = with_signs(cleaned, '+', '-');
  result.root = Parser(upper, result, work).whole();
  const std::string lower = with_signs(cleaned, '-', '+');
  if (lower == upper) return result;
  // a \pm b means both: the list of the two.
  const int second = Parser(lower, result, work).whole();
  Node both;
  both.op = Op::kList;
  both.children = {result.root, second};
  both.depth = 1 + std::max(result.at(result.root).depth, result.at(second).depth);
  result.nodes.push_back(std::move(both));
  result.root = static_cast<int>(result.nodes.size()) - 1;
  return result;
}

}  // namespace cohort::rl::math
