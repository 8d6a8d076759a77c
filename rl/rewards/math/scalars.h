// Equality of two scalars, the part of compare.h that holds no brackets.
#pragma once
#include "rl/rewards/math/expression.h"

namespace cohort::rl::math {

/// A place in a tree.
struct View {
  const Expression* expression;
  int index;

  const Node& node() const { return expression->at(index); }
  View child(size_t i) const { return {expression, node().children[i]}; }
};

bool scalars_equal(View gold, View answer, Work& work);

/// The constant c with  a = c * b  at every point tried, as its sign (-1 or 1); 0 when there is
/// none. The arguments are differences: left minus right side of two relations.
int sign_of_ratio(View a_left, View a_right, View b_left, View b_right, Work& work);

/// The same tree, number for number.
bool same_tree(View a, View b, Work& work);

}  // namespace cohort::rl::math
