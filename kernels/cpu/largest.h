// The largest of a row of logits.
#pragma once
#include <cstdint>
#include <type_traits>

#include "kernels/cpu/simd.h"

namespace cohort::kernels {

/// The largest logit. A NaN may drop out here: its exponential brings it back.
template <class T>
Sum<T> largest_of(const T* logits, int64_t classes) {
  using A = Sum<T>;
  Vector<A> largest = splat<A>(to_sum(logits[0]));
  each_vector<A>(classes, [&](int64_t i, auto n) COHORT_LAMBDA {
    auto v = load(logits + i, n);
    // Lanes beyond the end repeat the row's first element.
    if constexpr (!std::is_same_v<decltype(n), AllLanes<A>>)
      for (int64_t j = n; j < kLanes<A>; ++j) v[j] = to_sum(logits[0]);
    largest = v > largest ? v : largest;
  });
  return max_of<A>(largest);
}

}  // namespace cohort::kernels
