#include "rl/rewards/math/rational.h"

#include "core/base/rng.h"
#include "tests/catch.h"

using namespace cohort::rl::math;

namespace {

/// A number of up to `limbs` 32-bit digits with runs of all-ones digits, which long division
/// stumbles on.
BigInt random_integer(uint64_t seed, int limbs, Work& work) {
  BigInt value;
  for (int i = 0; i < limbs; ++i) {
    const uint64_t bits = cohort::core::random_bits(seed, 7, i);
    const int64_t digit = bits % 3 == 0 ? 0xffffffff : bits % 3 == 1 ? 0 : bits >> 33;
    value = add(multiply(value, BigInt(int64_t{1} << 32), work), BigInt(digit), work);
  }
  return seed % 2 ? value.negated() : value;
}

}  // namespace

TEST_CASE("long division gives back its dividend", "[rl][rewards]") {
  for (uint64_t seed = 0; seed < 2000; ++seed) {
    Work work;
    const BigInt a = random_integer(seed, 1 + seed % 9, work);
    const BigInt b = random_integer(seed * 31 + 5, 1 + seed % 5, work);
    if (b.is_zero()) continue;
    const auto [quotient, remainder] = divide(a, b, work);
    CHECK(add(multiply(quotient, b, work), remainder, work) == a);
    CHECK(compare(remainder.magnitude(), b.magnitude()) < 0);
    CHECK((remainder.is_zero() || remainder.is_negative() == a.is_negative()));
  }
}

TEST_CASE("small integers behave as the machine's do", "[rl][rewards]") {
  Work work;
  for (int64_t a : {-1000003, -17, -1, 0, 1, 6, 999999937})
    for (int64_t b : std::vector<int64_t>{-65537, -3, -1, 1, 2, 4294967291}) {
      CHECK(add(BigInt(a), BigInt(b), work).to_int64() == a + b);
      CHECK(multiply(BigInt(a), BigInt(b), work).to_int64() == a * b);
      CHECK(divide(BigInt(a), BigInt(b), work).first.to_int64() == a / b);
      CHECK(divide(BigInt(a), BigInt(b), work).second.to_int64() == a % b);
      CHECK(compare(BigInt(a), BigInt(b)) == (a < b ? -1 : a > b));
    }
  CHECK(floor(Rational(BigInt(-7), BigInt(2), work), work).to_int64() == -4);
  CHECK(BigInt::from_digits("000123456789012345678901234567890", work).bits() == 97);
}

TEST_CASE("roots are exact or not at all", "[rl][rewards]") {
  Work work;
  CHECK(exact_root(power(BigInt(12345), 7, work), 7, work) == BigInt(12345));
  CHECK_FALSE(exact_root(BigInt(2), 2, work));
  CHECK(exact_root(BigInt(1), 99, work) == BigInt(1));
  CHECK_FALSE(exact_root(add(power(BigInt(10), 200, work), BigInt(1), work), 2, work));
}

TEST_CASE("integers beyond the bound are refused before they are computed", "[rl][rewards]") {
  Work work;
  CHECK_THROWS_AS(power(BigInt(9), 387420489, work), TooBig);
  CHECK_THROWS_AS(BigInt::from_digits(std::string(2000, '9'), work), TooBig);
  CHECK(work.steps < 100'000);
  CHECK(power(BigInt(-1), 1'000'000'001, work) == BigInt(-1));
  CHECK_THROWS_AS(inverse(Rational(0), work), Undefined);
  Work little{10, 0};
  CHECK_THROWS_AS(power(BigInt(3), 2000, little), OutOfWork);
}
