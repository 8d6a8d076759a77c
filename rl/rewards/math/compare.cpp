#include "rl/rewards/math/compare.h"

#include <algorithm>
#include <vector>

#include "rl/rewards/math/scalars.h"

namespace cohort::rl::math {
namespace {

bool views_equal(View gold, View answer, Work& work);

bool is_collection(View view) {
  switch (view.node().op) {
    case Op::kList:
    case Op::kSet:
    case Op::kSequence:
    case Op::kUnion:
    case Op::kMatrix:
      return true;
    default:
      return false;
  }
}

bool is_relation(View view) { return view.node().op == Op::kRelation; }

/// Equalities alone.
bool is_equation(View view) {
  return is_relation(view) && view.node().name.find_first_not_of('=') == std::string::npos;
}

bool only_symbols(View view) {
  const Node& node = view.node();
  if (node.op == Op::kVariable || node.op == Op::kEuler || node.op == Op::kImaginary) return true;
  if (node.op != Op::kMultiply) return false;
  for (size_t i = 0; i < node.children.size(); ++i)
    if (!only_symbols(view.child(i))) return false;
  return true;
}

/// x = ..., f(x) = ...
bool is_assignment(View view) { return is_equation(view) && only_symbols(view.child(0)); }

View last_side(View view) { return view.child(view.node().children.size() - 1); }

bool in_order(View gold, View answer, Work& work) {
  const size_t count = gold.node().children.size();
  if (answer.node().children.size() != count) return false;
  for (size_t i = 0; i < count; ++i)
    if (!views_equal(gold.child(i), answer.child(i), work)) return false;
  return true;
}

/// Every element of `a` has an equal in `b`. The gold stands on the left of each comparison.
bool covers(View a, View b, bool a_is_gold, Work& work) {
  for (size_t i = 0; i < a.node().children.size(); ++i) {
    bool found = false;
    for (size_t j = 0; j < b.node().children.size() && !found; ++j)
      found = a_is_gold ? views_equal(a.child(i), b.child(j), work)
                        : views_equal(b.child(j), a.child(i), work);
    if (!found) return false;
  }
  return true;
}

bool as_sets(View gold, View answer, Work& work) {
  return covers(gold, answer, true, work) && covers(answer, gold, false, work);
}

bool round_brackets(View view) {
  return view.node().op == Op::kSequence && view.node().name == "()";
}

bool collections_equal(View gold, View answer, Work& work) {
  const Op a = gold.node().op, b = answer.node().op;
  if (a == Op::kSequence && b == Op::kSequence)
    return gold.node().name == answer.node().name && in_order(gold, answer, work);
  if (a == Op::kList && round_brackets(answer)) return in_order(gold, answer, work);
  if (b == Op::kList && round_brackets(gold)) return in_order(gold, answer, work);
  const auto is_set = [](Op op) { return op == Op::kSet || op == Op::kList; };
  if (is_set(a) && is_set(b)) return as_sets(gold, answer, work);
  if (a == Op::kUnion && b == Op::kUnion) return as_sets(gold, answer, work);
  if (a == Op::kMatrix && b == Op::kMatrix) return in_order(gold, answer, work);
  return false;
}

/// {5}, [5] and 5 are the same answer.
bool single_equal(View collection, View scalar, bool collection_is_gold, Work& work) {
  const Op op = collection.node().op;
  if ((op != Op::kSet && op != Op::kSequence) || collection.node().children.size() != 1)
    return false;
  return collection_is_gold ? views_equal(collection.child(0), scalar, work)
                            : views_equal(scalar, collection.child(0), work);
}

char flipped(char sign) {
  switch (sign) {
    case '<':
      return '>';
    case '>':
      return '<';
    case 'l':
      return 'g';
    case 'g':
      return 'l';
    default:
      return sign;
  }
}

bool one_sign_equal(View gold, View answer, Work& work) {
  const char a = gold.node().name[0], b = answer.node().name[0];
  if (a != b && a != flipped(b)) return false;
  if (collections_equal(gold.child(1), answer.child(1), work))
    return views_equal(gold.child(0), answer.child(0), work);
  const int sign =
      sign_of_ratio(gold.child(0), gold.child(1), answer.child(0), answer.child(1), work);
  if (sign == 0) return false;
  return a == (sign > 0 ? b : flipped(b)) || a == '=' || a == '#';
}

/// 0 < x < 1 against 1 > x > 0.
bool chain_equal(View gold, View answer, Work& work) {
  if (gold.node().name == answer.node().name && in_order(gold, answer, work)) return true;
  const size_t count = gold.node().children.size();
  if (answer.node().children.size() != count) return false;
  for (size_t i = 0; i + 1 < count; ++i)
    if (gold.node().name[i] != flipped(answer.node().name[count - 2 - i])) return false;
  for (size_t i = 0; i < count; ++i)
    if (!views_equal(gold.child(i), answer.child(count - 1 - i), work)) return false;
  return true;
}

bool relations_equal(View gold, View answer, Work& work) {
  // A chain x = 2^3 = 8 assigns its last side.
  if (is_assignment(gold) && is_assignment(answer) &&
      (gold.node().name.size() > 1 || answer.node().name.size() > 1))
    return views_equal(gold.child(0), answer.child(0), work) &&
           views_equal(last_side(gold), last_side(answer), work);
  if (gold.node().name.size() == 1 && answer.node().name.size() == 1)
    return one_sign_equal(gold, answer, work);
  return chain_equal(gold, answer, work);
}

/// The interval that an inequality of one variable means: its brackets and its ends (-1 stands for
/// an infinite end).
struct Bounds {
  bool known = false;
  char open = '(', close = ')';
  int low = -1, high = -1;
};

Bounds bounds_of(View relation) {
  const Node& node = relation.node();
  const auto is_variable = [&](size_t i) { return relation.child(i).node().op == Op::kVariable; };
  Bounds bounds;
  const auto take = [&](char sign, int end) {  // variable `sign` end
    if (sign == '<' || sign == 'l') {
      bounds.high = end;
      bounds.close = sign == 'l' ? ']' : ')';
    } else if (sign == '>' || sign == 'g') {
      bounds.low = end;
      bounds.open = sign == 'g' ? '[' : '(';
    } else {
      return false;
    }
    return true;
  };
  if (node.name.size() == 1 && is_variable(0))
    bounds.known = take(node.name[0], node.children[1]);
  else if (node.name.size() == 1 && is_variable(1))
    bounds.known = take(flipped(node.name[0]), node.children[0]);
  else if (node.name.size() == 2 && is_variable(1))
    bounds.known = take(flipped(node.name[0]), node.children[0]) &&
                   take(node.name[1], node.children[2]) && bounds.low >= 0 && bounds.high >= 0;
  return bounds;
}

bool is_infinite(View view, bool negative) {
  if (negative) return view.node().op == Op::kNegate && view.child(0).node().op == Op::kInfinity;
  return view.node().op == Op::kInfinity;
}

bool interval_equal(View relation, View interval, Work& work) {
  const Node& node = interval.node();
  if (node.op != Op::kSequence || node.children.size() != 2) return false;
  const Bounds bounds = bounds_of(relation);
  if (!bounds.known || node.name != std::string{bounds.open, bounds.close}) return false;
  const auto end_equal = [&](int end, View written, bool negative) {
    return end < 0 ? is_infinite(written, negative)
                   : views_equal({relation.expression, end}, written, work);
  };
  return end_equal(bounds.low, interval.child(0), true) &&
         end_equal(bounds.high, interval.child(1), false);
}

bool views_equal(View gold, View answer, Work& work) {
  work.spend(10);
  if (is_equation(answer) && !is_relation(gold))
    answer = last_side(answer);
  else if (is_assignment(gold) && !is_relation(answer))
    gold = last_side(gold);
  if (is_relation(gold) && is_relation(answer)) return relations_equal(gold, answer, work);
  if (is_relation(gold)) return interval_equal(gold, answer, work);
  if (is_relation(answer)) return interval_equal(answer, gold, work);
  if (is_collection(gold) && is_collection(answer)) return collections_equal(gold, answer, work);
  if (is_collection(gold)) return single_equal(gold, answer, true, work);
  if (is_collection(answer)) return single_equal(answer, gold, false, work);
  return scalars_equal(gold, answer, work);
}

}  // namespace

bool equal(const Expression& gold, const Expression& answer, Work& work) {
  return views_equal({&gold, gold.root}, {&answer, answer.root}, work);
}

bool has_variables(const Expression& expression) {
  return std::any_of(expression.nodes.begin(), expression.nodes.end(), [](const Node& node) {
    return node.op == Op::kVariable;
  });
}

}  // namespace cohort::rl::math
