#include "kernels/cpu/token_log_probs.h"

#include <cmath>
#include <type_traits>
#include <vector>

#include "kernels/cpu/largest.h"
#include "kernels/cpu/parallel.h"

namespace cohort::kernels {
namespace {

struct RowResult {
  double log_prob, entropy;
};

/// `work`, where given, receives the exponentials and `sum` their sum.
template <class T>
RowResult one_row(const T* logits,
                  int64_t target,
                  int64_t classes,
                  double inverse_temperature,
                  Sum<T>* work,
                  Sum<T>& sum) {
  using A = Sum<T>;
  const A top = largest_of(logits, classes), scale = static_cast<A>(inverse_temperature);
  Vector<A> sums = {}, weighted = {};
  each_vector<A>(classes, [&](int64_t i, auto n) COHORT_LAMBDA {
    Vector<A> d = (load(logits + i, n) - top) * scale;
    auto e = exp_of(d);
    // A logit of minus infinity has probability 0 and adds 0, not 0 times infinity.
    d = d < A(-1e4) ? splat<A>(A(-1e4)) : d;
    if constexpr (!std::is_same_v<decltype(n), AllLanes<A>>)
      for (int64_t j = n; j < kLanes<A>; ++j) e[j] = d[j] = 0;
    sums += e;
    weighted += e * d;
    if (work) store(work + i, e, n);
  });
  sum = sum_of<A>(sums);
  const double s = sum, log_sum = std::log(s);
  const double difference = static_cast<double>(to_sum(logits[target])) - static_cast<double>(top);
  return {difference * inverse_temperature - log_sum,
          log_sum - static_cast<double>(sum_of<A>(weighted)) / s};
}

template <class T>
void gradient_of_row(
    T* logits, int64_t target, int64_t classes, double coefficient, Sum<T>* work, Sum<T> sum) {
  using A = Sum<T>;
  const A scale = static_cast<A>(-coefficient / static_cast<double>(sum));
  work[target] -= sum;
  each_vector<A>(classes, [&](int64_t i, auto n) COHORT_LAMBDA {
    store(logits + i, load(work + i, n) * scale, n);
  });
}

}  // namespace

template <class T>
void token_log_probs(T* logits,
                     const int64_t* target,
                     int64_t rows,
                     int64_t classes,
                     double inverse_temperature,
                     const double* coefficient,
                     double* log_prob,
                     double* entropy) {
  using A = Sum<T>;
  parallel_for(rows, 8192 / classes + 1, [&](int64_t begin, int64_t end) {
    std::vector<A> work(coefficient ? classes : 0);
    for (int64_t i = begin; i < end; ++i) {
      T* row = logits + i * classes;
      A sum;
      const auto result = one_row<T>(
          row, target[i], classes, inverse_temperature, coefficient ? work.data() : nullptr, sum);
      log_prob[i] = result.log_prob;
      entropy[i] = result.entropy;
      if (coefficient)
        gradient_of_row<T>(
            row, target[i], classes, coefficient[i] * inverse_temperature, work.data(), sum);
    }
  });
}

#define COHORT_INSTANTIATE(T)       \
  template void token_log_probs<T>( \
      T*, const int64_t*, int64_t, int64_t, double, const double*, double*, double*);
COHORT_INSTANTIATE(float)
COHORT_INSTANTIATE(double)
COHORT_INSTANTIATE(bf16)
#undef COHORT_INSTANTIATE

}  // namespace cohort::kernels
