#include "kernels/cpu/cross_entropy.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/cpu/largest.h"
#include "kernels/cpu/parallel.h"

namespace cohort::kernels {
namespace {

template <class T>
double one_row(T* logits, int64_t target, int64_t classes, bool gradient, Sum<T>* work) {
  using A = Sum<T>;
  if (target < 0) {
    if (gradient) std::fill_n(logits, classes, T{});
    return 0;
  }
  // A NaN must reach the loss: its exponential does.
  const A top = largest_of(logits, classes);
  const double at_target = to_sum(logits[target]);

  Vector<A> sums = {};
  each_vector<A>(classes, [&](int64_t i, auto n) COHORT_LAMBDA {
    auto e = exp_of(load(logits + i, n) - top);
    if constexpr (!std::is_same_v<decltype(n), AllLanes<A>>)
      for (int64_t j = n; j < kLanes<A>; ++j) e[j] = 0;
    sums += e;
    if (gradient) store(work + i, e, n);
  });
  const A sum = sum_of<A>(sums);
  if (gradient) {
    const A inverse = 1 / sum;
    work[target] -= sum;
    each_vector<A>(classes, [&](int64_t i, auto n) COHORT_LAMBDA {
      store(logits + i, load(work + i, n) * inverse, n);
    });
  }
  return std::log(static_cast<double>(sum)) + static_cast<double>(top) - at_target;
}

}  // namespace

template <class T>
void cross_entropy(
    T* logits, const int64_t* target, int64_t rows, int64_t classes, bool gradient, double* loss) {
  using A = Sum<T>;
  parallel_for(rows, 8192 / classes + 1, [&](int64_t begin, int64_t end) {
    std::vector<A> work(gradient ? classes : 0);
    for (int64_t i = begin; i < end; ++i)
      loss[i] = one_row<T>(logits + i * classes, target[i], classes, gradient, work.data());
  });
}

#define COHORT_INSTANTIATE(T) \
  template void cross_entropy<T>(T*, const int64_t*, int64_t, int64_t, bool, double*);
COHORT_INSTANTIATE(float)
COHORT_INSTANTIATE(double)
COHORT_INSTANTIATE(bf16)
#undef COHORT_INSTANTIATE

}  // namespace cohort::kernels
