#include "rl/rewards/math/evaluate.h"

#include <cmath>
#include <limits>

namespace cohort::rl::math {
namespace {

/// Thrown inside exact evaluation where the value is no fraction.
struct Irrational {};

/// The largest n of n! below the bound of BigInt.
constexpr int64_t kMaxFactorial = 520;

class ExactEvaluator {
 public:
  ExactEvaluator(const Expression& expression, const Point& point, Work& work)
      : expression_(expression), point_(point), work_(work) {}

  Rational value(int index) {
    const Node& node = expression_.at(index);
    work_.spend(10);
    switch (node.op) {
      case Op::kNumber:
        return node.value;
      case Op::kVariable: {
        const auto found = point_.find(node.name);
        if (found == point_.end()) throw Irrational{};
        return found->second;
      }
      case Op::kAdd:
      case Op::kMultiply:
        return folded(node);
      case Op::kNegate:
        return value(node.children[0]).negated();
      case Op::kInverse:
        return inverse(value(node.children[0]), work_);
      case Op::kPercent:
        return multiply(value(node.children[0]), Rational(BigInt(1), BigInt(100), work_), work_);
      case Op::kPower:
        return raised(value(node.children[0]), value(node.children[1]));
      case Op::kRoot:
        return raised(value(node.children[0]), inverse(value(node.children[1]), work_));
      case Op::kFactorial:
        return factorial(value(node.children[0]));
      case Op::kBinomial:
        return binomial(value(node.children[0]), value(node.children[1]));
      case Op::kLog:
        return logarithm(value(node.children[0]), value(node.children[1]));
      case Op::kAbsolute: {
        const Rational inside = value(node.children[0]);
        return inside.is_negative() ? inside.negated() : inside;
      }
      case Op::kFloor:
        return Rational(floor(value(node.children[0]), work_), BigInt(1), work_);
      case Op::kCeiling:
        return Rational(floor(value(node.children[0]).negated(), work_), BigInt(1), work_)
            .negated();
      case Op::kFunction:
        return function(node.name, value(node.children[0]));
      default:
        throw Irrational{};
    }
  }

 private:
  Rational folded(const Node& node) {
    Rational result = value(node.children[0]);
    for (size_t i = 1; i < node.children.size(); ++i) {
      const Rational next = value(node.children[i]);
      result = node.op == Op::kAdd ? add(result, next, work_) : multiply(result, next, work_);
    }
    return result;
  }

  Rational raised(const Rational& base, const Rational& exponent) {
    if (base == Rational(1)) return base;
    if (base.is_zero()) {
      if (exponent.is_negative()) throw Undefined{};
      return exponent.is_zero() ? Rational(1) : base;
    }
    const auto times = exponent.numerator().to_int64();
    const auto root = exponent.denominator().to_int64();
    if (!times || !root) throw TooBig{};
    if (*root == 1) return power(base, *times, work_);
    if (base.is_negative()) throw Irrational{};
    const auto exact = exact_root(base, *root, work_);
    if (!exact) throw Irrational{};
    return power(*exact, *times, work_);
  }

  int64_t natural(const Rational& n) {
    if (!n.is_integer() || n.is_negative()) throw Irrational{};
    const auto small = n.to_int64();
    if (!small || *small > kMaxFactorial) throw TooBig{};
    return *small;
  }

  Rational factorial(const Rational& n) {
    BigInt product(1);
    for (int64_t i = 2, last = natural(n); i <= last; ++i)
      product = multiply(product, BigInt(i), work_);
    return Rational(product, BigInt(1), work_);
  }

  Rational binomial(const Rational& n_value, const Rational& k_value) {
    const int64_t n = natural(n_value), k = natural(k_value);
    BigInt product(k <= n ? 1 : 0);
    for (int64_t i = 1; i <= std::min(k, n - k); ++i)
      product = divide(multiply(product, BigInt(n - i + 1), work_), BigInt(i), work_).first;
    return Rational(product, BigInt(1), work_);
  }

  /// k where base^k is the argument, for small integers k.
  Rational logarithm(const Rational& argument, const Rational& base) {
    if (argument == Rational(1)) return Rational(0);
    const long double guess = std::log(argument.to_long_double()) / std::log(base.to_long_double());
    if (!(std::fabs(guess) < BigInt::kMaxBits)) throw Irrational{};
    const int64_t k = std::llround(guess);
    if (k == 0 || power(base, k, work_) != argument) throw Irrational{};
    return Rational(k);
  }

  Rational function(const std::string& name, const Rational& argument) {
    if (!argument.is_zero()) throw Irrational{};
    if (name == "cos" || name == "cosh" || name == "sec") return Rational(1);
    if (name == "arccos") throw Irrational{};
    if (name == "cot" || name == "csc") throw Undefined{};
    return Rational(0);
  }

  const Expression& expression_;
  const Point& point_;
  Work& work_;
};

using Complex = std::complex<long double>;

Complex function_value(const std::string& name, Complex x) {
  const Complex one(1);
  if (name == "sin") return std::sin(x);
  if (name == "cos") return std::cos(x);
  if (name == "tan") return std::tan(x);
  if (name == "cot") return one / std::tan(x);
  if (name == "sec") return one / std::cos(x);
  if (name == "csc") return one / std::sin(x);
  if (name == "sinh") return std::sinh(x);
  if (name == "cosh") return std::cosh(x);
  if (name == "tanh") return std::tanh(x);
  if (name == "arcsin") return std::asin(x);
  if (name == "arccos") return std::acos(x);
  return std::atan(x);
}

Complex real_only(Complex x, long double (*f)(long double)) {
  return x.imag() == 0 ? Complex(f(x.real())) : Complex(std::nanl(""));
}

Complex power_value(Complex base, Complex exponent) {
  // An integer power keeps real numbers real, and i^2 at -1 to the last bit.
  const long double n = exponent.real();
  if (exponent.imag() == 0 && n == std::rint(n) && std::fabs(n) <= 64) {
    Complex result(1), square = n < 0 ? Complex(1) / base : base;
    for (int rest = std::abs(static_cast<int>(n)); rest; rest >>= 1, square *= square)
      if (rest & 1) result *= square;
    return result;
  }
  if (base.imag() == 0 && exponent.imag() == 0 && base.real() >= 0)
    return Complex(std::pow(base.real(), n));
  return std::pow(base, exponent);
}

Complex root_value(Complex radicand, Complex index) {
  const long double k = index.real();
  // The real root of a negative number, where the index is odd.
  if (radicand.imag() == 0 && radicand.real() < 0 && index.imag() == 0 && k == std::rint(k) &&
      std::fmod(std::fabs(k), 2.0L) == 1.0L)
    return Complex(-std::pow(-radicand.real(), 1 / k));
  if (index == Complex(2))
    return radicand.imag() == 0 && radicand.real() >= 0 ? Complex(std::sqrt(radicand.real()))
                                                        : std::sqrt(radicand);
  return power_value(radicand, Complex(1) / index);
}

}  // namespace

Exact exact_value(const Expression& expression, int index, const Point& point, Work& work) {
  try {
    return {Exact::kValue, ExactEvaluator(expression, point, work).value(index)};
  } catch (Irrational) {
    return {Exact::kIrrational, {}};
  } catch (TooBig) {
    return {Exact::kTooBig, {}};
  } catch (Undefined) {
    return {Exact::kUndefined, {}};
  }
}

Complex numeric_value(const Expression& expression, int index, const Point& point, Work& work) {
  const Node& node = expression.at(index);
  work.spend(100);
  const auto child = [&](size_t i) {
    return numeric_value(expression, node.children[i], point, work);
  };
  const Complex nan(std::nanl(""));
  switch (node.op) {
    case Op::kNumber:
      return node.value.to_long_double();
    case Op::kVariable: {
      const auto found = point.find(node.name);
      return found == point.end() ? nan : Complex(found->second.to_long_double());
    }
    case Op::kPi:
      return std::acos(-1.0L);
    case Op::kEuler:
      return std::exp(1.0L);
    case Op::kImaginary:
      return Complex(0, 1);
    case Op::kInfinity:
      return std::numeric_limits<long double>::infinity();
    case Op::kAdd: {
      Complex sum = child(0);
      for (size_t i = 1; i < node.children.size(); ++i) sum += child(i);
      return sum;
    }
    case Op::kMultiply: {
      Complex product = child(0);
      for (size_t i = 1; i < node.children.size(); ++i) product *= child(i);
      return product;
    }
    case Op::kNegate:
      return -child(0);
    case Op::kInverse:
      return Complex(1) / child(0);
    case Op::kPercent:
      return child(0) / 100.0L;
    case Op::kPower:
      return power_value(child(0), child(1));
    case Op::kRoot:
      return root_value(child(0), child(1));
    case Op::kFactorial:
      return real_only(child(0) + 1.0L, [](long double x) { return std::tgamma(x); });
    case Op::kLog:
      return std::log(child(0)) / std::log(child(1));
    case Op::kAbsolute:
      return std::abs(child(0));
    case Op::kFloor:
      return real_only(child(0), [](long double x) { return std::floor(x); });
    case Op::kCeiling:
      return real_only(child(0), [](long double x) { return std::ceil(x); });
    case Op::kFunction:
      return function_value(node.name, child(0));
    default:
      return nan;  // collections and what else has no single value
  }
}

}  // namespace cohort::rl::math
