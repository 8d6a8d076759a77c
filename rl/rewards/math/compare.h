// Whether two written answers mean the same: what the reference, math-verify 0.9, calls equal,
// decided by exact fractions where both sides have one, and by values at pseudo-random points where
// they do not.
//
// Departures from the reference, all where it parts from plain mathematics:
//   {1, 2} and (1, 2) differ; a bare "1, 2" equals either.
//   i^2 = -1; "1e3" is a thousand.
//   an inequality equals its interval whichever of the two is the gold.
//   6-decimal agreement of tiny numbers must be relative agreement too (1e-7 is not 2e-7).
#pragma once
#include <string_view>

#include "rl/rewards/math/expression.h"

namespace cohort::rl::math {

/// Numbers are equal when they are exactly equal, or agree to 6 decimals where one is written as a
/// decimal and neither is an integer. N% equals N/100, and N where both are integers. An equation
/// x = N equals N. Throws OutOfWork.
bool equal(const Expression& gold, const Expression& answer, Work& work);

/// True when some variable stands in the expression.
bool has_variables(const Expression& expression);

}  // namespace cohort::rl::math
