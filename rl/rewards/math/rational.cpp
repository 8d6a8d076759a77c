#include "rl/rewards/math/rational.h"

#include <utility>

namespace cohort::rl::math {

Rational::Rational(BigInt numerator, BigInt denominator, Work& work)
    : numerator_(std::move(numerator)), denominator_(std::move(denominator)) {
  if (denominator_.is_zero()) throw Undefined{};
  if (denominator_.is_negative()) {
    numerator_ = numerator_.negated();
    denominator_ = denominator_.negated();
  }
  if (denominator_.is_one()) return;
  const BigInt common = gcd(numerator_, denominator_, work);
  if (common.is_one()) return;
  numerator_ = divide(numerator_, common, work).first;
  denominator_ = divide(denominator_, common, work).first;
}

std::optional<int64_t> Rational::to_int64() const {
  return is_integer() ? numerator_.to_int64() : std::nullopt;
}

long double Rational::to_long_double() const {
  return numerator_.to_long_double() / denominator_.to_long_double();
}

Rational Rational::negated() const {
  Rational result = *this;
  result.numerator_ = numerator_.negated();
  return result;
}

Rational add(const Rational& a, const Rational& b, Work& work) {
  return Rational(add(multiply(a.numerator(), b.denominator(), work),
                      multiply(b.numerator(), a.denominator(), work),
                      work),
                  multiply(a.denominator(), b.denominator(), work),
                  work);
}

Rational multiply(const Rational& a, const Rational& b, Work& work) {
  return Rational(multiply(a.numerator(), b.numerator(), work),
                  multiply(a.denominator(), b.denominator(), work),
                  work);
}

Rational inverse(const Rational& a, Work& work) {
  return Rational(a.denominator(), a.numerator(), work);
}

int compare(const Rational& a, const Rational& b, Work& work) {
  const Rational difference = add(a, b.negated(), work);
  return difference.is_zero() ? 0 : difference.is_negative() ? -1 : 1;
}

Rational power(const Rational& a, int64_t exponent, Work& work) {
  if (exponent < 0) return power(inverse(a, work), -exponent, work);
  return Rational(
      power(a.numerator(), exponent, work), power(a.denominator(), exponent, work), work);
}

std::optional<Rational> exact_root(const Rational& a, int64_t k, Work& work) {
  const auto numerator = exact_root(a.numerator(), k, work);
  if (!numerator) return std::nullopt;
  const auto denominator = exact_root(a.denominator(), k, work);
  if (!denominator) return std::nullopt;
  return Rational(*numerator, *denominator, work);
}

BigInt floor(const Rational& a, Work& work) {
  auto [quotient, remainder] = divide(a.numerator(), a.denominator(), work);
  return remainder.is_negative() ? add(quotient, BigInt(-1), work) : quotient;
}

}  // namespace cohort::rl::math
