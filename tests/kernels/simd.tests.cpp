#include "kernels/cpu/simd.h"

#include <cmath>
#include <limits>
#include <vector>

#include "tests/catch.h"

using namespace cohort::kernels;

namespace {

template <class A>
std::vector<A> exponentials(const std::vector<A>& x) {
  std::vector<A> y(x.size());
  each_vector<A>(x.size(),
                 [&](int64_t i, auto n) { store(y.data() + i, exp_of(load(x.data() + i, n)), n); });
  return y;
}

template <class A>
double worst_exponential(A from, A to, int count) {
  std::vector<A> x(count);
  for (int i = 0; i < count; ++i) x[i] = from + (to - from) * A(i) / A(count - 1);
  const auto y = exponentials(x);
  double worst = 0;
  for (int i = 0; i < count; ++i) {
    const long double exact = std::exp(static_cast<long double>(x[i]));
    worst = std::max(worst, static_cast<double>(std::abs(y[i] / exact - 1)));
  }
  return worst;
}

float rounded(float x) {
  bf16 b;
  from_sum(x, b);
  return to_sum(b);
}

}  // namespace

TEST_CASE("The vector exponential is right to two units in the last place", "[kernels-simd]") {
  CHECK(worst_exponential<float>(-87.3f, 88.0f, 200001) < 2.4e-7);
  CHECK(worst_exponential<float>(-1.0f, 1.0f, 100001) < 2.4e-7);
  CHECK(worst_exponential<double>(-708.0, 709.0, 200001) < 4.5e-16);
  CHECK(worst_exponential<double>(-1.0, 1.0, 100001) < 4.5e-16);
}

TEST_CASE("The vector exponential ends in zero, infinity and NaN", "[kernels-simd]") {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::nanf("");
  const auto f = exponentials<float>({-inf, -1e30f, -88.0f, 0.0f, 89.0f, 1e30f, inf, nan});
  CHECK(f[0] == 0);
  CHECK(f[1] == 0);
  CHECK(f[2] == 0);
  CHECK(f[3] == 1);
  CHECK(f[4] == inf);
  CHECK(f[5] == inf);
  CHECK(f[6] == inf);
  CHECK(std::isnan(f[7]));
  const auto d = exponentials<double>({-inf, -1e300, 0.0, 1e300, inf, std::nan("")});
  CHECK(d[0] == 0);
  CHECK(d[1] == 0);
  CHECK(d[2] == 1);
  CHECK(std::isinf(d[3]));
  CHECK(std::isinf(d[4]));
  CHECK(std::isnan(d[5]));
}

TEST_CASE("bf16 rounds to nearest even, in vectors as alone", "[kernels-simd]") {
  CHECK(rounded(1.0f) == 1.0f);
  CHECK(rounded(1.00390625f) == 1.0f);       // halfway, even below
  CHECK(rounded(1.01171875f) == 1.015625f);  // halfway, even above
  CHECK(rounded(1.00390637f) == 1.0078125f);
  CHECK(std::isinf(rounded(3.4e38f)));
  CHECK(std::isnan(rounded(std::nanf(""))));
  CHECK(std::isnan(rounded(std::bit_cast<float>(0x7fffffffu))));
  float x[16];
  for (int i = 0; i < 16; ++i)
    x[i] = 1.0f + 0.001953125f * static_cast<float>(i * (i % 2 ? -1 : 1));
  x[3] = std::bit_cast<float>(0x7fffffffu);
  x[4] = -3.4e38f;
  bf16 b[16];
  store(b, load(x));
  for (int i = 0; i < 16; ++i) {
    bf16 alone;
    from_sum(x[i], alone);
    CHECK((b[i].bits == alone.bits || (i == 3 && std::isnan(to_sum(b[i])))));
  }
}

TEST_CASE("Pieces cover a count once, with a short one at the end", "[kernels-simd]") {
  for (int64_t count : {0, 1, 15, 16, 17, 48}) {
    std::vector<int> touched(count + 1);
    each_vector<float>(count, [&](int64_t i, auto n) {
      for (int64_t j = 0; j < n; ++j) ++touched[i + j];
    });
    for (int64_t i = 0; i < count; ++i) CHECK(touched[i] == 1);
    CHECK(touched[count] == 0);
  }
}

TEST_CASE("Sums over lanes add every lane once and maxima see every lane", "[kernels-simd]") {
  for (int lane = 0; lane < 16; ++lane) {
    float x[16] = {};
    x[lane] = 3;
    CHECK(sum_of<float>(load(x)) == 3);
    CHECK(max_of<float>(load(x)) == 3);
  }
}
