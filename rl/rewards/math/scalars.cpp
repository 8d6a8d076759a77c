#include "rl/rewards/math/scalars.h"

#include <cmath>
#include <optional>
#include <set>

#include "core/base/rng.h"
#include "rl/rewards/math/evaluate.h"

namespace cohort::rl::math {
namespace {

using Complex = std::complex<long double>;

constexpr int kPoints = 6;
constexpr int kPointsNeeded = 3;            // with a value on both sides
constexpr long double kTolerance = 1e-12L;  // relative; the mantissa has 64 bits

void collect_variables(View view, std::set<std::string>& names) {
  if (view.node().op == Op::kVariable) names.insert(view.node().name);
  for (size_t i = 0; i < view.node().children.size(); ++i) collect_variables(view.child(i), names);
}

/// Fractions of either sign below 4, the same for the same names: scores must not change from run
/// to run. Denominators keep clear of the zeros and poles that people write.
Point point_at(const std::set<std::string>& names, int idx, Work& work) {
  constexpr int64_t kDenominators[] = {97, 89, 83, 79, 73, 71};
  Point point;
  for (const std::string& name : names) {
    const uint64_t bits = core::random_bits(0x51DE, core::stream_of(name), idx);
    const int64_t denominator = kDenominators[idx % 6];
    const int64_t numerator = 1 + static_cast<int64_t>(bits % (3 * denominator));
    // The first points are positive: roots and logarithms have values there.
    const bool negative = idx >= kPointsNeeded && (bits >> 63);
    point[name] = Rational(BigInt(negative ? -numerator : numerator), BigInt(denominator), work);
  }
  return point;
}

bool is_finite(Complex x) { return std::isfinite(x.real()) && std::isfinite(x.imag()); }

bool close(Complex a, Complex b) {
  const long double scale = std::max(std::abs(a), std::abs(b));
  return std::abs(a - b) <= kTolerance * std::max(scale, 1e-30L);
}

bool is_decimal(View view) {
  const Node& node = view.node();
  if (node.op == Op::kNegate || node.op == Op::kPercent) return is_decimal(view.child(0));
  return node.op == Op::kNumber && node.decimal;
}

/// The 6-decimal rule of the reference.
bool rounds_equal(long double a, long double b) {
  if (!std::isfinite(a) || !std::isfinite(b) || a == std::rint(a) || b == std::rint(b))
    return false;
  return std::rint(a * 1e6L) == std::rint(b * 1e6L) &&
         std::fabs(a - b) <= 1e-3L * std::max(std::fabs(a), std::fabs(b));
}

/// 0 for a finite expression, else the sign of the infinity that it is.
int infinity_sign(View view) {
  if (view.node().op == Op::kInfinity) return 1;
  if (view.node().op == Op::kNegate) return -infinity_sign(view.child(0));
  return 0;
}

/// N where the expression is N% and N an integer, else its own integer value.
std::optional<Rational> integer_or_percent(View view, Work& work) {
  const View inside = view.node().op == Op::kPercent ? view.child(0) : view;
  if (is_decimal(inside)) return std::nullopt;
  const Exact exact = exact_value(*inside.expression, inside.index, {}, work);
  if (exact.kind != Exact::kValue || !exact.value.is_integer()) return std::nullopt;
  return exact.value;
}

bool constants_equal(View gold, View answer, Work& work) {
  const Exact a = exact_value(*gold.expression, gold.index, {}, work);
  const Exact b = exact_value(*answer.expression, answer.index, {}, work);
  if (a.kind == Exact::kUndefined || b.kind == Exact::kUndefined) return false;
  if (a.kind == Exact::kTooBig || b.kind == Exact::kTooBig) return same_tree(gold, answer, work);
  const bool decimal = is_decimal(gold) || is_decimal(answer);
  if (a.kind == Exact::kValue && b.kind == Exact::kValue) {
    if (a.value == b.value) return true;
    if ((gold.node().op == Op::kPercent) != (answer.node().op == Op::kPercent)) {
      const auto n = integer_or_percent(gold, work), m = integer_or_percent(answer, work);
      if (n && m && *n == *m) return true;
    }
    return decimal && rounds_equal(a.value.to_long_double(), b.value.to_long_double());
  }
  const Complex x = numeric_value(*gold.expression, gold.index, {}, work);
  const Complex y = numeric_value(*answer.expression, answer.index, {}, work);
  if (!is_finite(x) || !is_finite(y)) return same_tree(gold, answer, work);
  if (decimal && x.imag() == 0 && y.imag() == 0) return rounds_equal(x.real(), y.real());
  return close(x, y);
}

/// The value at one point: exact where possible.
struct Value {
  bool exists = false;
  bool exact = false;
  Rational fraction;
  Complex number;
};

Value value_at(View view, const Point& point, Work& work) {
  const Exact exact = exact_value(*view.expression, view.index, point, work);
  if (exact.kind == Exact::kUndefined) return {};
  if (exact.kind == Exact::kValue)
    return {true, true, exact.value, Complex(exact.value.to_long_double())};
  const Complex number = numeric_value(*view.expression, view.index, point, work);
  return {is_finite(number), false, {}, number};
}

Value difference(const Value& a, const Value& b, Work& work) {
  if (!a.exists || !b.exists) return {};
  try {
    if (a.exact && b.exact) {
      const Rational exact = add(a.fraction, b.fraction.negated(), work);
      return {true, true, exact, Complex(exact.to_long_double())};
    }
  } catch (TooBig) {
  }
  return {true, false, {}, a.number - b.number};
}

}  // namespace

bool same_tree(View a, View b, Work& work) {
  work.spend(10);
  const Node &x = a.node(), &y = b.node();
  if (x.op != y.op || x.name != y.name || x.value != y.value ||
      x.children.size() != y.children.size())
    return false;
  for (size_t i = 0; i < x.children.size(); ++i)
    if (!same_tree(a.child(i), b.child(i), work)) return false;
  return true;
}

bool scalars_equal(View gold, View answer, Work& work) {
  const int infinite = infinity_sign(gold);
  if (infinite || infinity_sign(answer)) return infinite == infinity_sign(answer);
  std::set<std::string> names;
  collect_variables(gold, names);
  collect_variables(answer, names);
  if (names.empty()) return constants_equal(gold, answer, work);
  int compared = 0;
  for (int idx = 0; idx < kPoints; ++idx) {
    const Point point = point_at(names, idx, work);
    const Value a = value_at(gold, point, work), b = value_at(answer, point, work);
    if (!a.exists && !b.exists) continue;
    if (!a.exists || !b.exists) return false;
    const bool same = a.exact && b.exact ? a.fraction == b.fraction : close(a.number, b.number);
    if (!same) return false;
    ++compared;
  }
  return compared >= kPointsNeeded || same_tree(gold, answer, work);
}

int sign_of_ratio(View a_left, View a_right, View b_left, View b_right, Work& work) {
  std::set<std::string> names;
  for (View view : {a_left, a_right, b_left, b_right}) collect_variables(view, names);
  std::optional<Complex> ratio;
  for (int idx = 0; idx < kPoints; ++idx) {
    const Point point = point_at(names, idx, work);
    const Value a = difference(value_at(a_left, point, work), value_at(a_right, point, work), work);
    const Value b = difference(value_at(b_left, point, work), value_at(b_right, point, work), work);
    if (!a.exists || !b.exists || b.number == Complex(0) || a.number == Complex(0)) return 0;
    const Complex here = a.number / b.number;
    if (!is_finite(here) || (ratio && !close(here, *ratio))) return 0;
    ratio = here;
  }
  return ratio->imag() != 0 ? 0 : ratio->real() < 0 ? -1 : 1;
}

}  // namespace cohort::rl::math
