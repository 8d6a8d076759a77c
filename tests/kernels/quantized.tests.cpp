#include "kernels/cpu/quantized.h"

#include <cmath>
#include <random>
#include <vector>

#include "kernels/cpu/gemm.h"
#include "tests/catch.h"

using namespace cohort::kernels;

namespace {

std::vector<float> random_floats(int64_t count, unsigned seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal;
  std::vector<float> out(static_cast<size_t>(count));
  for (float& x : out) x = normal(rng);
  return out;
}

struct Holder {
  QuantizedShape shape;
  std::vector<uint8_t> data;
  std::vector<float> scale, offset;

  Holder(const std::vector<float>& w, QuantizedShape s)
      : shape(s),
        data(static_cast<size_t>(s.data_bytes())),
        scale(static_cast<size_t>(s.num_scales())),
        offset(s.bits == 4 ? scale.size() : 0) {
    quantize(w.data(), s.k, matrix());
  }
  QuantizedMatrix matrix() {
    return {shape, data.data(), scale.data(), offset.empty() ? nullptr : offset.data()};
  }
  std::vector<float> dequantized() {
    std::vector<float> out(static_cast<size_t>(shape.n * shape.k));
    for (int64_t row = 0; row < shape.n; ++row)
      dequantize_row(matrix(), row, out.data() + row * shape.k);
    return out;
  }
};

const QuantizedShape kShapes[] = {{33, 300, 128, 8},
                                  {33, 300, 128, 4},
                                  {1, 1, 128, 8},
                                  {1, 1, 128, 4},
                                  {200, 77, 7, 4},
                                  {200, 77, 1, 8},
                                  {48, 1030, 32, 4},
                                  {130, 513, 1000, 4},
                                  {130, 513, 64, 8}};

}  // namespace

TEST_CASE("a quantised element is off by at most half its group's scale", "[quantized]") {
  for (const QuantizedShape& shape : kShapes) {
    INFO(shape.n << "x" << shape.k << ", groups of " << shape.group << ", " << shape.bits);
    auto w = random_floats(shape.n * shape.k, 1);
    for (int64_t row = 0; row < shape.n; ++row)  // rows and groups of very different sizes
      for (int64_t i = 0; i < shape.k; ++i)
        w[row * shape.k + i] *= std::ldexp(1.0f, static_cast<int>(row % 9 + i / shape.group % 5));
    Holder held(w, shape);
    const auto got = held.dequantized();
    double worst = 0;
    for (int64_t row = 0; row < shape.n; ++row)
      for (int64_t begin = 0; begin < shape.k; begin += shape.group) {
        const int64_t end = std::min(shape.k, begin + shape.group);
        const float *first = &w[row * shape.k + begin], *last = &w[row * shape.k] + end;
        const double low = *std::min_element(first, last), high = *std::max_element(first, last);
        const double scale = shape.bits == 8 ? std::max(-low, high) / 127 : (high - low) / 15;
        const double room = 1e-6 * std::max(-low, high);
        for (int64_t i = begin; i < end; ++i) {
          const double off = std::fabs(w[row * shape.k + i] - got[row * shape.k + i]);
          REQUIRE(off <= scale / 2 + room);
          if (scale > 0) worst = std::max(worst, off / scale);
        }
      }
    if (shape.n > 1) CHECK(worst > (shape.group == 1 ? -1 : 0.4));  // the bound is close
  }
}

TEST_CASE("extremes of a group, zeros and constants are held exactly or to a rounding",
          "[quantized]") {
  for (const int bits : {8, 4}) {
    std::vector<float> w(64, 0.0f);
    for (int i = 16; i < 32; ++i) w[i] = -3.25f;
    for (int i = 32; i < 48; ++i) w[i] = i % 2 ? 5.0f : -5.0f;
    w[50] = 1e-30f;
    Holder held(w, {1, 64, 16, bits});
    const auto got = held.dequantized();
    for (int i = 0; i < 48; ++i) CHECK(got[i] == Approx(w[i]).epsilon(1e-6));
    CHECK(std::isfinite(got[50]));
  }
}

TEST_CASE("the quantised product has the bits of the GEMM on the dequantised matrix",
          "[quantized]") {
  for (const QuantizedShape& shape : kShapes)
    for (const int64_t m : {0, 1, 3, 40, 150}) {
      INFO(m << " rows by " << shape.n << "x" << shape.k << ", " << shape.bits << " bits");
      const auto w = random_floats(shape.n * shape.k, 2), x = random_floats(m * shape.k + 1, 3);
      Holder held(w, shape);
      const auto reference = held.dequantized();
      std::vector<float> y(static_cast<size_t>(m * shape.n + 1), NAN), expected = y;
      const QuantizedProduct product{held.matrix(), m, x.data(), shape.k, y.data(), shape.n};
      quantized_products(&product, 1);
      gemm({GemmForm::kNT,
            m,
            shape.n,
            shape.k,
            x.data(),
            shape.k,
            reference.data(),
            shape.k,
            expected.data(),
            shape.n});
      y.pop_back(), expected.pop_back();
      REQUIRE(y == expected);
    }
}

TEST_CASE("quantised products of many sizes run side by side", "[quantized]") {
  std::vector<Holder> held;
  std::vector<std::vector<float>> x, y, alone;
  for (const QuantizedShape& shape : kShapes) {
    held.emplace_back(random_floats(shape.n * shape.k, 4), shape);
    const auto m = static_cast<int64_t>(held.size() * 5 % 7);
    x.push_back(random_floats(m * shape.k, 5));
    y.emplace_back(static_cast<size_t>(m * shape.n));
    alone.push_back(y.back());
  }
  std::vector<QuantizedProduct> products;
  for (size_t i = 0; i < held.size(); ++i) {
    const QuantizedShape& shape = held[i].shape;
    const auto m = static_cast<int64_t>(x[i].size()) / shape.k;
    products.push_back({held[i].matrix(), m, x[i].data(), shape.k, y[i].data(), shape.n});
    auto one = products.back();
    one.y = alone[i].data();
    quantized_products(&one, 1);
  }
  quantized_products(products.data(), static_cast<int64_t>(products.size()));
  CHECK(y == alone);
}

TEST_CASE("quantised weights take a fraction of fp32's bytes", "[quantized]") {
  const QuantizedShape eight{1024, 1024, 128, 8}, four{1024, 1024, 128, 4};
  const double whole = 1024.0 * 1024 * 4;
  CHECK(static_cast<double>(eight.data_bytes() + 4 * eight.num_scales()) / whole ==
        Approx((8 + 32.0 / 128) / 32));
  CHECK(static_cast<double>(four.data_bytes() + 8 * four.num_scales()) / whole ==
        Approx((4 + 64.0 / 128) / 32));
}
