// Random draws of one problem: a function of (seed, stream, index, attempt) and of how many were
// drawn.
#pragma once
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "core/base/rng.h"

namespace cohort::rl {

class Draw {
 public:
  Draw(uint64_t seed, std::string_view stream, int64_t index, int64_t attempt)
      : key_(core::random_bits(
            core::random_bits(seed, core::stream_of(stream), index), 0, attempt)) {}

  /// Uniform in low..high. The bias of the remainder is below 2^-40 for ranges of a few million.
  int64_t between(int64_t low, int64_t high) {
    const uint64_t span = static_cast<uint64_t>(high) - static_cast<uint64_t>(low) + 1;
    return low + static_cast<int64_t>(core::random_bits(key_, 1, count_++) % span);
  }

  template <class T>
  const T& one_of(const std::vector<T>& values) {
    return values[between(0, static_cast<int64_t>(values.size()) - 1)];
  }

  template <class T>
  void shuffle(std::vector<T>& values) {
    for (size_t i = values.size(); i > 1; --i)
      std::swap(values[i - 1], values[between(0, static_cast<int64_t>(i) - 1)]);
  }

 private:
  uint64_t key_;
  uint64_t count_ = 0;
};

}  // namespace cohort::rl
