#include "kernels/cpu/cross_entropy.h"

#include <omp.h>

#include <cmath>
#include <random>
#include <vector>

#include "tests/catch.h"

using namespace cohort::kernels;

namespace {

template <class T>
std::vector<T> random_logits(int64_t count) {
  std::mt19937 generator(3);
  std::normal_distribution<double> normal(0, 4);
  std::vector<T> x(count);
  for (auto& v : x) from_sum(static_cast<Sum<T>>(normal(generator)), v);
  return x;
}

template <class T>
void compare_with_definition(int64_t rows,
                             int64_t classes,
                             double loss_bound,
                             double gradient_bound) {
  const auto logits = random_logits<T>(rows * classes);
  std::vector<int64_t> target(rows);
  for (int64_t i = 0; i < rows; ++i) target[i] = i % 3 == 2 ? -1 : (i * 7) % classes;
  auto gradient = logits;
  std::vector<double> loss(rows), loss_alone(rows);
  cross_entropy<T>(gradient.data(), target.data(), rows, classes, true, loss.data());
  auto untouched = logits;
  cross_entropy<T>(untouched.data(), target.data(), rows, classes, false, loss_alone.data());
  for (int64_t i = 0; i < rows; ++i) {
    double sum = 0;
    for (int64_t j = 0; j < classes; ++j)
      sum += std::exp(static_cast<double>(to_sum(logits[i * classes + j])));
    const double expected =
        target[i] < 0 ? 0 : std::log(sum) - to_sum(logits[i * classes + target[i]]);
    CHECK(std::abs(loss[i] - expected) < loss_bound);
    CHECK(loss_alone[i] == loss[i]);
    double worst = 0;
    for (int64_t j = 0; j < classes; ++j) {
      const double p = std::exp(static_cast<double>(to_sum(logits[i * classes + j]))) / sum;
      const double exact = target[i] < 0 ? 0 : p - (j == target[i] ? 1 : 0);
      worst = std::max(worst, std::abs(to_sum(gradient[i * classes + j]) - exact));
      CHECK_FALSE(to_sum(untouched[i * classes + j]) != to_sum(logits[i * classes + j]));
    }
    CHECK(worst < gradient_bound);
  }
}

}  // namespace

TEST_CASE("Cross-entropy of rows and its gradient follow the definition",
          "[kernels-cross_entropy]") {
  for (int64_t classes : {1, 2, 15, 16, 17, 100}) {
    compare_with_definition<double>(7, classes, 1e-12, 1e-14);
    compare_with_definition<float>(7, classes, 2e-5, 1e-6);
    compare_with_definition<bf16>(7, classes, 2e-5, 4e-3);
  }
}

TEST_CASE("Cross-entropy has the same bits on any number of threads", "[kernels-cross_entropy]") {
  const int64_t rows = 60, classes = 1001;
  const std::vector<int64_t> target(rows, 5);
  const int before = omp_get_max_threads();
  std::vector<float> first;
  for (int threads : {1, 2, 3}) {
    omp_set_num_threads(threads);
    auto logits = random_logits<float>(rows * classes);
    std::vector<double> loss(rows);
    cross_entropy<float>(logits.data(), target.data(), rows, classes, true, loss.data());
    if (first.empty()) first = logits;
    CHECK(logits == first);
  }
  omp_set_num_threads(before);
}
