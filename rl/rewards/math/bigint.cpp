#include "rl/rewards/math/bigint.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <tuple>
#include <utility>

namespace cohort::rl::math {
namespace {

using Limbs = std::vector<uint32_t>;

int compare_limbs(const Limbs& a, const Limbs& b) {
  if (a.size() != b.size()) return a.size() < b.size() ? -1 : 1;
  for (size_t i = a.size(); i-- > 0;)
    if (a[i] != b[i]) return a[i] < b[i] ? -1 : 1;
  return 0;
}

Limbs add_limbs(const Limbs& a, const Limbs& b) {
  Limbs sum(std::max(a.size(), b.size()) + 1);
  uint64_t carry = 0;
  for (size_t i = 0; i < sum.size(); ++i) {
    carry += (i < a.size() ? a[i] : 0ull) + (i < b.size() ? b[i] : 0ull);
    sum[i] = static_cast<uint32_t>(carry);
    carry >>= 32;
  }
  return sum;
}

/// a - b for a >= b.
Limbs subtract_limbs(const Limbs& a, const Limbs& b) {
  Limbs difference(a.size());
  int64_t borrow = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    int64_t digit = int64_t{a[i]} - (i < b.size() ? int64_t{b[i]} : 0) + borrow;
    borrow = digit < 0 ? -1 : 0;
    difference[i] = static_cast<uint32_t>(digit);
  }
  return difference;
}

/// The limbs shifted left by less than 32 bits, with one limb of room on top.
Limbs shifted_left(const Limbs& a, int shift) {
  Limbs shifted(a.size() + 1);
  uint64_t carry = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    carry |= uint64_t{a[i]} << shift;
    shifted[i] = static_cast<uint32_t>(carry);
    carry >>= 32;
  }
  shifted[a.size()] = static_cast<uint32_t>(carry);
  return shifted;
}

/// Division by one limb: the quotient replaces `a`, the remainder is returned.
uint32_t divide_by_limb(Limbs& a, uint32_t divisor) {
  uint64_t remainder = 0;
  for (size_t i = a.size(); i-- > 0;) {
    remainder = (remainder << 32) | a[i];
    a[i] = static_cast<uint32_t>(remainder / divisor);
    remainder %= divisor;
  }
  return static_cast<uint32_t>(remainder);
}

/// Subtracts digit * v from the window of u that starts at `at`; true when that went below zero.
bool subtract_multiple(Limbs& u, const Limbs& v, size_t at, uint64_t digit) {
  uint64_t carry = 0;
  int64_t borrow = 0;
  for (size_t i = 0; i < v.size(); ++i) {
    carry += digit * v[i];
    const int64_t rest = int64_t{u[at + i]} - static_cast<uint32_t>(carry) + borrow;
    u[at + i] = static_cast<uint32_t>(rest);
    borrow = rest < 0 ? -1 : 0;
    carry >>= 32;
  }
  const int64_t rest = int64_t{u[at + v.size()]} - static_cast<int64_t>(carry) + borrow;
  u[at + v.size()] = static_cast<uint32_t>(rest);
  return rest < 0;
}

void add_back(Limbs& u, const Limbs& v, size_t at) {
  uint64_t carry = 0;
  for (size_t i = 0; i < v.size(); ++i) {
    carry += uint64_t{u[at + i]} + v[i];
    u[at + i] = static_cast<uint32_t>(carry);
    carry >>= 32;
  }
  u[at + v.size()] += static_cast<uint32_t>(carry);
}

/// Long division (Knuth, TAOCP 4.3.1, algorithm D); b has at least two limbs and a >= b.
std::pair<Limbs, Limbs> divide_limbs(const Limbs& a, const Limbs& b) {
  const int shift = std::countl_zero(b.back());
  Limbs u = shifted_left(a, shift);
  Limbs v = shifted_left(b, shift);
  v.pop_back();  // normalised: the top bit of v is set
  const size_t n = v.size();
  Limbs quotient(a.size() - n + 1);
  for (size_t j = quotient.size(); j-- > 0;) {
    const uint64_t top = (uint64_t{u[j + n]} << 32) | u[j + n - 1];
    uint64_t digit = top / v[n - 1], rest = top % v[n - 1];
    while (digit >> 32 || digit * v[n - 2] > ((rest << 32) | u[j + n - 2])) {
      --digit;
      rest += v[n - 1];
      if (rest >> 32) break;
    }
    if (subtract_multiple(u, v, j, digit)) {
      --digit;
      add_back(u, v, j);
    }
    quotient[j] = static_cast<uint32_t>(digit);
  }
  u.resize(n);
  for (size_t i = 0; i < n; ++i)  // undo the normalisation
    u[i] = static_cast<uint32_t>(((uint64_t{i + 1 < n ? u[i + 1] : 0u} << 32 | u[i]) >> shift) &
                                 0xffffffffu);
  return {std::move(quotient), std::move(u)};
}

}  // namespace

BigInt::BigInt(int64_t value) {
  uint64_t rest =
      value < 0 ? uint64_t(0) - static_cast<uint64_t>(value) : static_cast<uint64_t>(value);
  for (; rest; rest >>= 32) limbs_.push_back(static_cast<uint32_t>(rest));
  negative_ = value < 0;
}

void BigInt::trim(bool negative) {
  while (!limbs_.empty() && limbs_.back() == 0) limbs_.pop_back();
  negative_ = negative && !limbs_.empty();
  if (bits() > kMaxBits) throw TooBig{};
}

int64_t BigInt::bits() const {
  return limbs_.empty()
             ? 0
             : 32 * static_cast<int64_t>(limbs_.size()) - std::countl_zero(limbs_.back());
}

BigInt BigInt::from_digits(std::string_view digits, Work& work) {
  while (digits.size() > 1 && digits.front() == '0') digits.remove_prefix(1);
  if (static_cast<int64_t>(digits.size()) > kMaxBits / 3) throw TooBig{};
  BigInt value;
  for (char c : digits) {
    uint64_t carry = static_cast<uint64_t>(c - '0');
    work.spend(1 + static_cast<int64_t>(value.limbs_.size()));
    for (uint32_t& limb : value.limbs_) {
      carry += uint64_t{limb} * 10;
      limb = static_cast<uint32_t>(carry);
      carry >>= 32;
    }
    if (carry) value.limbs_.push_back(static_cast<uint32_t>(carry));
  }
  value.trim(false);
  return value;
}

std::optional<int64_t> BigInt::to_int64() const {
  if (bits() > 62) return std::nullopt;
  int64_t value = 0;
  for (size_t i = limbs_.size(); i-- > 0;) value = (value << 32) | limbs_[i];
  return negative_ ? -value : value;
}

long double BigInt::to_long_double() const {
  long double value = 0;
  for (size_t i = limbs_.size(); i-- > 0;) value = value * 0x1p32L + limbs_[i];
  return negative_ ? -value : value;
}

BigInt BigInt::negated() const {
  BigInt result = *this;
  result.negative_ = !negative_ && !limbs_.empty();
  return result;
}

BigInt BigInt::magnitude() const {
  BigInt result = *this;
  result.negative_ = false;
  return result;
}

int compare(const BigInt& a, const BigInt& b) {
  if (a.negative_ != b.negative_) return a.negative_ ? -1 : 1;
  const int order = compare_limbs(a.limbs_, b.limbs_);
  return a.negative_ ? -order : order;
}

BigInt add(const BigInt& a, const BigInt& b, Work& work) {
  work.spend(4 + static_cast<int64_t>(a.limbs_.size() + b.limbs_.size()));
  BigInt sum;
  if (a.negative_ == b.negative_) {
    sum.limbs_ = add_limbs(a.limbs_, b.limbs_);
    sum.trim(a.negative_);
  } else if (compare_limbs(a.limbs_, b.limbs_) >= 0) {
    sum.limbs_ = subtract_limbs(a.limbs_, b.limbs_);
    sum.trim(a.negative_);
  } else {
    sum.limbs_ = subtract_limbs(b.limbs_, a.limbs_);
    sum.trim(b.negative_);
  }
  return sum;
}

BigInt subtract(const BigInt& a, const BigInt& b, Work& work) { return add(a, b.negated(), work); }

BigInt multiply(const BigInt& a, const BigInt& b, Work& work) {
  work.spend(4 + static_cast<int64_t>(a.limbs_.size() * b.limbs_.size()));
  if (a.bits() + b.bits() > BigInt::kMaxBits + 1) throw TooBig{};
  BigInt product;
  product.limbs_.resize(a.limbs_.size() + b.limbs_.size());
  for (size_t i = 0; i < a.limbs_.size(); ++i) {
    uint64_t carry = 0;
    for (size_t j = 0; j < b.limbs_.size(); ++j) {
      carry += product.limbs_[i + j] + uint64_t{a.limbs_[i]} * b.limbs_[j];
      product.limbs_[i + j] = static_cast<uint32_t>(carry);
      carry >>= 32;
    }
    product.limbs_[i + b.limbs_.size()] = static_cast<uint32_t>(carry);
  }
  product.trim(a.negative_ != b.negative_);
  return product;
}

std::pair<BigInt, BigInt> divide(const BigInt& a, const BigInt& b, Work& work) {
  BigInt quotient, remainder = a;
  if (compare_limbs(a.limbs_, b.limbs_) < 0) {
    work.spend(4);
    return {quotient, remainder};
  }
  work.spend(8 +
             static_cast<int64_t>((a.limbs_.size() - b.limbs_.size() + 2) * (b.limbs_.size() + 2)));
  if (b.limbs_.size() == 1) {
    quotient.limbs_ = a.limbs_;
    remainder.limbs_.assign(1, divide_by_limb(quotient.limbs_, b.limbs_[0]));
  } else {
    std::tie(quotient.limbs_, remainder.limbs_) = divide_limbs(a.limbs_, b.limbs_);
  }
  quotient.trim(a.negative_ != b.negative_);
  remainder.trim(a.negative_);
  return {quotient, remainder};
}

BigInt gcd(BigInt a, BigInt b, Work& work) {
  a = a.magnitude();
  b = b.magnitude();
  while (!b.is_zero()) {
    BigInt remainder = divide(a, b, work).second;
    a = std::move(b);
    b = std::move(remainder);
  }
  return a;
}

BigInt power(const BigInt& base, int64_t exponent, Work& work) {
  if (exponent == 0) return BigInt(1);
  if (base.bits() <= 1) return exponent % 2 == 0 ? base.magnitude() : base;  // 0, 1, -1
  if ((base.bits() - 1) > BigInt::kMaxBits / exponent) throw TooBig{};
  BigInt result(1), square = base;
  for (int64_t rest = exponent;;) {
    if (rest & 1) result = multiply(result, square, work);
    rest >>= 1;
    if (!rest) return result;
    square = multiply(square, square, work);
  }
}

std::optional<BigInt> exact_root(const BigInt& n, int64_t k, Work& work) {
  if (k == 1 || n.bits() <= 1) return n;
  if (k > n.bits()) return std::nullopt;
  // Bisection: 2^((bits-1)/k) <= root < 2^(bits/k + 1).
  BigInt low = power(BigInt(2), (n.bits() - 1) / k, work);
  BigInt high = power(BigInt(2), n.bits() / k + 1, work);
  while (compare(low, high) <= 0) {
    const BigInt middle = divide(add(low, high, work), BigInt(2), work).first;
    int order = 1;
    try {
      order = compare(power(middle, k, work), n);
    } catch (TooBig) {  // beyond the bound, so beyond n
    }
    if (order == 0) return middle;
    if (order < 0)
      low = add(middle, BigInt(1), work);
    else
      high = add(middle, BigInt(-1), work);
  }
  return std::nullopt;
}

}  // namespace cohort::rl::math
