#include "kernels/cpu/likeliest.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include "tests/catch.h"

using namespace cohort;

namespace {

template <class T>
std::vector<T> some_logits(int64_t classes) {
  std::mt19937 random(7);
  std::vector<T> logits(classes);
  // Halves: equals are common.
  for (T& logit : logits) logit = static_cast<T>(static_cast<int>(random() % 40) - 20) / 2;
  return logits;
}

}  // namespace

TEMPLATE_TEST_CASE("the likeliest classes come in order, with their log-probabilities",
                   "[kernels-likeliest]",
                   float,
                   double) {
  const int64_t classes = 203;
  auto logits = some_logits<TestType>(classes);
  const auto before = logits;
  std::vector<int32_t> order(classes);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(
      order.begin(), order.end(), [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
  double sum = 0;
  for (const TestType logit : logits) sum += std::exp(static_cast<double>(logit));
  for (const int64_t k : {1, 2, 17, 203}) {
    std::vector<int32_t> token(k);
    std::vector<double> log_prob(k);
    kernels::likeliest<TestType>(logits.data(), classes, k, token.data(), log_prob.data());
    CHECK(token == std::vector<int32_t>(order.begin(), order.begin() + k));
    for (int64_t i = 0; i < k; ++i)
      CHECK(log_prob[i] ==
            Approx(static_cast<double>(logits[token[i]]) - std::log(sum)).epsilon(1e-6));
  }
  CHECK(logits == before);
}
