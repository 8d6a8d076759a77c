// Recursive descent over cleaned text. Recursion is bounded by kMaxDepth, length by
// kMaxExpressionBytes, and every character is paid for in Work.
//
//   list     = relation (("," | ";") relation)*
//   relation = union (("=" | "<" | "\le" | ...) union)*
//   union    = sum ("\cup" sum)*
//   sum      = term (("+" | "-") term)*
//   term     = product (("*" | "/" | "\cdot" | ...) product)*
//   product  = power power*                  written side by side: binds tighter than "/"
//   power    = atom ("!" | "%" | "^" exponent)*
#pragma once
#include <string>
#include <string_view>

#include "rl/rewards/math/expression.h"

namespace cohort::rl::math {

class Parser {
 public:
  Parser(std::string_view cleaned, Expression& into, Work& work)
      : text_(cleaned), into_(into), work_(work) {}

  /// The root of the tree of the whole text. Throws Unparsed, TooBig, OutOfWork.
  int whole();

 private:
  // parser.cpp: the grammar above
  int list();
  int relation();
  char relation_sign();
  int union_of_sets();
  int sum();
  int term();
  bool times_sign();
  bool divide_sign();
  int product();
  bool starts_factor();
  int power();
  int exponent();
  int negated(int child);

  // parser_atoms.cpp: numbers, names, brackets, commands
  int atom();
  int number();
  std::string integer_digits();
  int repeating(const std::string& integer, const std::string& fraction);
  int name();
  int subscripted(std::string name);
  int bracketed(char open);
  int set();
  int absolute();
  int between(std::string_view closing, Op op);
  int command();
  int argument();
  int group();
  int root();
  int function(std::string_view name);
  int function_argument();
  int logarithm(bool natural);
  int matrix();

  // parser.cpp: places and nodes
  void skip_spaces();
  bool done();
  char peek(size_t ahead = 0) const;
  bool accept(std::string_view sign);
  bool at_command(std::string_view name) const;
  bool accept_command(std::string_view name);
  void expect(std::string_view sign);
  std::string_view letters_at(size_t start) const;
  int add_node(Op op, std::vector<int> children = {}, std::string name = {});
  int add_number(Rational value, bool decimal = false);
  const Node& at(int index) const { return into_.nodes[index]; }

  /// Counts nesting for as long as it lives.
  struct Level {
    explicit Level(Parser& parser);
    ~Level() { --parser_.depth_; }
    Parser& parser_;
  };

  std::string_view text_;
  size_t place_ = 0;
  Expression& into_;
  Work& work_;
  int depth_ = 0;
  bool in_bracket_ = false;   // a comma separates, never thousands
  bool in_absolute_ = false;  // a bar closes, never opens
};

}  // namespace cohort::rl::math
