#include "kernels/cpu/gemm.h"

#include <omp.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "tests/catch.h"

using namespace cohort::kernels;

namespace {

std::vector<GemmPath> paths() {
  std::vector<GemmPath> found;
  for (const GemmPath path : {GemmPath::kPortable, GemmPath::kAvx2, GemmPath::kAvx512})
    if (gemm_path_available(path)) found.push_back(path);
  return found;
}

std::vector<float> random_floats(size_t count, uint64_t seed) {
  std::mt19937_64 engine(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(engine);
  return values;
}

/// A product with storage. What the leading dimensions leave between the rows is NaN in the
/// operands and a mark in C.
struct Case {
  GemmProduct product;
  std::vector<float> a, b, c;
  static constexpr float kMark = 12345.0f;

  Case(GemmForm form, int64_t m, int64_t n, int64_t k, int64_t gap, uint64_t seed) {
    const int64_t a_rows = form == GemmForm::kTN ? k : m, a_columns = form == GemmForm::kTN ? m : k;
    const int64_t b_rows = form == GemmForm::kNT ? n : k, b_columns = form == GemmForm::kNT ? k : n;
    const auto fill = [&](int64_t rows, int64_t columns, int64_t ld, float between, uint64_t salt) {
      std::vector<float> values = random_floats(rows * ld, seed * 3 + salt);
      for (int64_t i = 0; i < rows; ++i)
        for (int64_t j = columns; j < ld; ++j) values[i * ld + j] = between;
      return values;
    };
    const float nan = std::numeric_limits<float>::quiet_NaN();
    product = {
        form, m, n, k, nullptr, a_columns + gap, nullptr, b_columns + gap, nullptr, n + gap, false};
    a = fill(a_rows, a_columns, product.lda, nan, 0);
    b = fill(b_rows, b_columns, product.ldb, nan, 1);
    c = fill(m, n, product.ldc, kMark, 2);
  }

  std::vector<float> run(GemmPath path, bool accumulate) const {
    std::vector<float> out = c;
    GemmProduct p = product;
    p.a = a.data(), p.b = b.data(), p.c = out.data(), p.accumulate = accumulate;
    gemm(p, path);
    return out;
  }

  double a_at(int64_t i, int64_t k) const {
    return product.form == GemmForm::kTN ? a[k * product.lda + i] : a[i * product.lda + k];
  }
  double b_at(int64_t k, int64_t j) const {
    return product.form == GemmForm::kNT ? b[j * product.ldb + k] : b[k * product.ldb + j];
  }

  /// Largest error over the bound of a chain of k roundings, (k + 1) eps sum |a b|; infinite if a
  /// mark between the rows changed.
  double worst(const std::vector<float>& out, bool accumulate) const {
    double worst = 0;
    const double eps = std::numeric_limits<float>::epsilon() / 2;
    for (int64_t i = 0; i < product.m; ++i) {
      for (int64_t j = 0; j < product.n; ++j) {
        double sum = accumulate ? c[i * product.ldc + j] : 0, size = std::abs(sum);
        for (int64_t k = 0; k < product.k; ++k) {
          sum += a_at(i, k) * b_at(k, j);
          size += std::abs(a_at(i, k) * b_at(k, j));
        }
        const double error = std::abs(out[i * product.ldc + j] - sum);
        if (!(error <= 2 * (product.k + 1) * eps * size))
          worst = std::max(worst, error / (eps * size));
      }
      for (int64_t j = product.n; j < product.ldc; ++j)
        if (out[i * product.ldc + j] != kMark) worst = std::numeric_limits<double>::infinity();
    }
    return worst;
  }
};

bool same_bits(const float* a, const float* b, int64_t count) {
  return std::memcmp(a, b, count * sizeof(float)) == 0;
}

const GemmForm kForms[] = {GemmForm::kNN, GemmForm::kNT, GemmForm::kTN};

}  // namespace

TEST_CASE("every form, tail, leading dimension and instruction set agrees with fp64",
          "[kernels][gemm]") {
  std::mt19937 engine(1);
  std::uniform_int_distribution<int64_t> size(1, 70), gap(0, 5);
  for (int round = 0; round < 30; ++round)
    for (const GemmForm form : kForms) {
      const Case c(form, size(engine), size(engine), size(engine), gap(engine), engine());
      for (const GemmPath path : paths())
        for (const bool accumulate : {false, true}) {
          CAPTURE(int(form), int(path), accumulate, c.product.m, c.product.n, c.product.k);
          REQUIRE(c.worst(c.run(path, accumulate), accumulate) == 0);
        }
    }
}

TEST_CASE("sizes beyond each cache block agree with fp64", "[kernels][gemm]") {
  // Rows beyond one run of tiles, columns beyond a task, k beyond a block, rows 2 KiB apart.
  const int64_t sizes[][4] = {{300, 40, 20, 0},
                              {530, 33, 9, 1},
                              {20, 600, 17, 0},
                              {30, 20, 1000, 0},
                              {17, 40, 512, 0},
                              {40, 30, 1013, 11},
                              {1, 200, 800, 0},
                              {3, 300, 400, 0},
                              {512, 31, 40, 0}};
  for (const auto& s : sizes)
    for (const GemmForm form : kForms) {
      const Case c(form, s[0], s[1], s[2], s[3], 5);
      for (const GemmPath path : paths())
        for (const bool accumulate : {false, true}) {
          CAPTURE(int(form), int(path), accumulate, s[0], s[1], s[2]);
          REQUIRE(c.worst(c.run(path, accumulate), accumulate) == 0);
        }
    }
}

TEST_CASE("what C held does not leak into a product that does not accumulate", "[kernels][gemm]") {
  for (const GemmForm form : kForms)
    for (const GemmPath path : paths())
      for (const int64_t k : {int64_t{0}, int64_t{1}, int64_t{30}}) {
        Case c(form, 19, 37, k, 0, 2);
        for (float& value : c.c) value = std::numeric_limits<float>::quiet_NaN();
        CAPTURE(int(form), int(path), k);
        REQUIRE(c.worst(c.run(path, false), false) == 0);
      }
}

TEST_CASE("a NaN in one row or column of the operands stays in that row or column",
          "[kernels][gemm]") {
  for (const GemmForm form : kForms)
    for (const GemmPath path : paths()) {
      Case c(form, 23, 21, 18, 0, 3);
      const int64_t row = 7;
      c.a[form == GemmForm::kTN ? 4 * c.product.lda + row : row * c.product.lda + 4] = NAN;
      const auto out = c.run(path, false);
      for (int64_t i = 0; i < 23; ++i)
        for (int64_t j = 0; j < 21; ++j) REQUIRE(std::isnan(out[i * 21 + j]) == (i == row));
    }
}

TEST_CASE("a product without rows or columns does nothing, without k it clears or keeps C",
          "[kernels][gemm]") {
  for (const GemmPath path : paths()) {
    REQUIRE(Case(GemmForm::kNN, 0, 5, 5, 0, 1).run(path, false).empty());
    REQUIRE(Case(GemmForm::kNT, 5, 0, 5, 0, 1).run(path, false).empty());
    const Case none(GemmForm::kTN, 3, 4, 0, 0, 1);
    REQUIRE(none.run(path, false) == std::vector<float>(12, 0.0f));
    REQUIRE(none.run(path, true) == none.c);
    gemm_many(nullptr, 0, path);
  }
}

TEST_CASE("the number of threads does not change a bit", "[kernels][gemm]") {
  const int before = omp_get_max_threads();
  for (const GemmForm form : kForms)
    for (const GemmPath path : paths())
      for (const int64_t k : {int64_t{176}, int64_t{801}}) {
        const Case c(form, 150, 130, k, 0, 4);
        omp_set_num_threads(1);
        const auto alone = c.run(path, true);
        for (const int threads : {2, 3, 5}) {
          omp_set_num_threads(threads);
          CAPTURE(int(form), int(path), k, threads);
          REQUIRE(same_bits(c.run(path, true).data(), alone.data(), alone.size()));
        }
      }
  omp_set_num_threads(before);
}

TEST_CASE("a row has the same bits alone and among any number of others", "[kernels][gemm]") {
  for (const GemmForm form : {GemmForm::kNN, GemmForm::kNT})
    for (const GemmPath path : paths())
      for (const int64_t k : {int64_t{61}, int64_t{512}, int64_t{801}})
        for (const int64_t n : {int64_t{64}, int64_t{75}}) {
          const Case c(form, 300, n, k, 0, 6);
          const auto whole = c.run(path, false);
          for (const int64_t first : {int64_t{0}, int64_t{13}})
            for (const int64_t rows : {1, 2, 3, 4, 5, 6, 7, 9, 10, 14, 15, 16, 29, 64, 130, 287}) {
              std::vector<float> part(rows * n);
              GemmProduct p = c.product;
              p.m = rows, p.a = c.a.data() + first * p.lda, p.b = c.b.data(), p.c = part.data();
              gemm(p, path);
              CAPTURE(int(form), int(path), k, n, first, rows);
              REQUIRE(same_bits(part.data(), whole.data() + first * n, rows * n));
            }
        }
}

TEST_CASE("AVX2 and AVX-512 give the same bits", "[kernels][gemm]") {
  if (!gemm_path_available(GemmPath::kAvx512)) {
    WARN("not run: this CPU has no AVX-512");
    return;
  }
  for (const GemmForm form : kForms) {
    const Case c(form, 47, 83, 500, 2, 7);
    const auto a = c.run(GemmPath::kAvx2, true), b = c.run(GemmPath::kAvx512, true);
    REQUIRE(same_bits(a.data(), b.data(), a.size()));
  }
}

TEST_CASE("a list of products gives what they give one by one", "[kernels][gemm]") {
  const int before = omp_get_max_threads();
  std::mt19937 engine(8);
  std::uniform_int_distribution<int64_t> rows(0, 90);
  for (const GemmForm form : kForms)
    for (const GemmPath path : paths()) {
      std::vector<Case> cases;
      std::vector<std::vector<float>> out;
      std::vector<GemmProduct> products;
      for (uint64_t i = 0; i < 9; ++i) {
        const int64_t count = i == 4 ? 0 : rows(engine);
        cases.push_back(form == GemmForm::kTN ? Case(form, 48, 65, count, 0, i)
                                              : Case(form, count, 65, 48, 0, i));
        out.push_back(cases.back().c);
      }
      for (size_t i = 0; i < cases.size(); ++i) {
        products.push_back(cases[i].product);
        products[i].a = cases[i].a.data(), products[i].b = cases[i].b.data(),
        products[i].c = out[i].data();
      }
      omp_set_num_threads(2);
      gemm_many(products.data(), static_cast<int64_t>(products.size()), path);
      for (size_t i = 0; i < cases.size(); ++i) REQUIRE(out[i] == cases[i].run(path, false));
    }
  omp_set_num_threads(before);
}

TEST_CASE("A weight packed beforehand gives the same bits", "[kernels-gemm]") {
  for (const GemmPath path : paths())
    for (const int64_t m : {1, 2, 7, 13, 15, 33, 130})
      for (const auto& [n, k] : {std::pair<int64_t, int64_t>{32, 16},
                                 {1, 1},
                                 {17, 5},
                                 {352, 256},
                                 {300, 401},
                                 {64, 800}}) {
        CAPTURE(static_cast<int>(path), m, n, k);
        Case c(GemmForm::kNT, m, n, k, 3, m * n + k);
        std::vector<float> packed(gemm_packed_size(n, k, path));
        gemm_pack(c.b.data(), c.product.ldb, n, k, packed.data(), path);
        for (const bool accumulate : {false, true}) {
          const auto plain = c.run(path, accumulate);
          c.product.b_packed = packed.data();
          const auto steady = c.run(path, accumulate);
          c.product.b_packed = nullptr;
          CHECK(std::memcmp(plain.data(), steady.data(), plain.size() * sizeof(float)) == 0);
        }
      }
}
