// Integers of bounded size: sign and magnitude in base 2^32, schoolbook arithmetic.
#pragma once
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "rl/rewards/math/work.h"

namespace cohort::rl::math {

/// Thrown by any operation whose result would need more than BigInt::kMaxBits bits.
struct TooBig {};

class BigInt {
 public:
  /// About 1230 decimal digits: more than any answer a person would write down.
  static constexpr int64_t kMaxBits = 4096;

  BigInt(int64_t value = 0);
  /// `digits` holds decimal digits only. Throws TooBig.
  static BigInt from_digits(std::string_view digits, Work& work);

  bool is_zero() const { return limbs_.empty(); }
  bool is_negative() const { return negative_; }
  bool is_one() const { return !negative_ && limbs_.size() == 1 && limbs_[0] == 1; }
  bool is_odd() const { return !limbs_.empty() && (limbs_[0] & 1); }
  /// Length of the magnitude in bits; 0 for zero.
  int64_t bits() const;
  /// The value, when it fits.
  std::optional<int64_t> to_int64() const;
  long double to_long_double() const;

  BigInt negated() const;
  BigInt magnitude() const;

  friend BigInt add(const BigInt& a, const BigInt& b, Work& work);
  friend BigInt multiply(const BigInt& a, const BigInt& b, Work& work);
  /// Quotient rounded towards zero and remainder with the sign of `a`; b must not be zero.
  friend std::pair<BigInt, BigInt> divide(const BigInt& a, const BigInt& b, Work& work);
  friend int compare(const BigInt& a, const BigInt& b);
  friend bool operator==(const BigInt&, const BigInt&) = default;

 private:
  void trim(bool negative);

  bool negative_ = false;
  std::vector<uint32_t> limbs_;  // least significant first, no leading zero
};

BigInt subtract(const BigInt& a, const BigInt& b, Work& work);
/// Greatest common divisor of the magnitudes.
BigInt gcd(BigInt a, BigInt b, Work& work);
/// base^exponent. Throws TooBig before it computes a power that cannot fit.
BigInt power(const BigInt& base, int64_t exponent, Work& work);
/// The integer whose k-th power is n (n >= 0, k >= 1), when there is one.
std::optional<BigInt> exact_root(const BigInt& n, int64_t k, Work& work);

}  // namespace cohort::rl::math
