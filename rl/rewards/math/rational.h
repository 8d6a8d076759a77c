// Exact fractions over bounded integers.
#pragma once
#include <optional>

#include "rl/rewards/math/bigint.h"

namespace cohort::rl::math {

/// Thrown by a division by zero and by what has no value (0^-1, (-3)!).
struct Undefined {};

/// numerator / denominator in lowest terms, denominator > 0. Operations throw TooBig and Undefined.
class Rational {
 public:
  Rational(int64_t value = 0) : numerator_(value), denominator_(1) {}
  Rational(BigInt numerator, BigInt denominator, Work& work);

  const BigInt& numerator() const { return numerator_; }
  const BigInt& denominator() const { return denominator_; }
  bool is_zero() const { return numerator_.is_zero(); }
  bool is_integer() const { return denominator_.is_one(); }
  bool is_negative() const { return numerator_.is_negative(); }
  std::optional<int64_t> to_int64() const;
  long double to_long_double() const;
  Rational negated() const;
  friend bool operator==(const Rational&, const Rational&) = default;

 private:
  BigInt numerator_, denominator_;
};

Rational add(const Rational& a, const Rational& b, Work& work);
Rational multiply(const Rational& a, const Rational& b, Work& work);
Rational inverse(const Rational& a, Work& work);
/// -1, 0 or 1.
int compare(const Rational& a, const Rational& b, Work& work);
/// a^exponent for an integer exponent of either sign.
Rational power(const Rational& a, int64_t exponent, Work& work);
/// The rational whose k-th power is a (for a >= 0), when there is one.
std::optional<Rational> exact_root(const Rational& a, int64_t k, Work& work);
/// The largest integer that is not above a.
BigInt floor(const Rational& a, Work& work);

}  // namespace cohort::rl::math
