// What a written answer means: a tree of bounded size and depth.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "rl/rewards/math/rational.h"
#include "rl/rewards/math/work.h"

namespace cohort::rl::math {

enum class Op {
  // scalars
  kNumber,    // value
  kVariable,  // name
  kPi,
  kEuler,      // e
  kImaginary,  // i
  kInfinity,
  kAdd,       // any number of children
  kMultiply,  // any number of children
  kNegate,
  kInverse,
  kPower,  // base, exponent
  kRoot,   // radicand, index
  kFactorial,
  kBinomial,  // n, k
  kLog,       // argument, base
  kAbsolute,
  kFloor,
  kCeiling,
  kFunction,  // name (sin, arctan, ...), argument
  kPercent,   // argument
  // collections
  kList,      // 1, 2, 3 with no brackets
  kSet,       // {1, 2, 3}
  kSequence,  // (1, 2), [0, 1): name holds the two brackets
  kUnion,
  kMatrix,  // rows, each a kSequence
  // statements
  kRelation,  // a < b = c: name holds one character for each sign: = # < > l (<=) g (>=)
};

struct Node {
  Op op = Op::kNumber;
  std::vector<int> children;
  std::string name;
  Rational value;
  bool decimal = false;  // a number written with a point
  int depth = 1;
};

/// The tree as an arena; children stand before their parent.
struct Expression {
  std::vector<Node> nodes;
  int root = -1;

  const Node& at(int index) const { return nodes[index]; }
};

/// Thrown where a text is no expression: it then has no mathematical value, which is no error.
struct Unparsed {};

/// The longest text that is taken for one answer, in bytes.
inline constexpr size_t kMaxExpressionBytes = 2000;
/// The deepest nesting that is followed.
inline constexpr int kMaxDepth = 100;

/// Reads LaTeX or plain notation. Throws Unparsed, TooBig or OutOfWork.
Expression parse(std::string_view text, Work& work);

/// The text with one spelling for everything that is written in many ways: Unicode signs, spacing,
/// \left and \right, `and` and `or` between answers, dollar signs. Exposed for the parser and
/// tests.
std::string clean(std::string_view text);

/// Without a currency sign in front or a unit behind ("12 \text{ cm}", "45^\circ", "5 dollars"),
/// unless nothing would be left. `single_letters` also takes "12 m" for 12.
std::string without_units(std::string_view cleaned, bool single_letters);

/// For answers that are words: letters and digits alone, lower case where there is no mathematics.
std::string as_words(std::string_view text);

}  // namespace cohort::rl::math
