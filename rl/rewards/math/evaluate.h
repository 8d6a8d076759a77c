// The value of a scalar expression: exactly, as a fraction, where there is one; else in complex
// floating point of 64-bit mantissa.
#pragma once
#include <complex>
#include <map>
#include <string>

#include "rl/rewards/math/expression.h"

namespace cohort::rl::math {

/// Values of the variables.
using Point = std::map<std::string, Rational>;

struct Exact {
  enum Kind {
    kValue,       // `value` is the exact result
    kIrrational,  // no fraction (or not known to be one): evaluate in floating point
    kTooBig,      // a fraction beyond the bound: no floating point can tell it from its neighbours
    kUndefined,   // division by zero and the like
  } kind = kIrrational;
  Rational value;
};

/// Never throws but OutOfWork.
Exact exact_value(const Expression& expression, int index, const Point& point, Work& work);

/// NaN or infinite where there is no value. Throws OutOfWork.
std::complex<long double> numeric_value(const Expression& expression,
                                        int index,
                                        const Point& point,
                                        Work& work);

}  // namespace cohort::rl::math
