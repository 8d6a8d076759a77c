// A hard bound on what judging one answer may cost. Everything that can grow with a hostile answer
// (parsing, big integers, evaluation) pays here first, so the cost is bounded by construction and
// not by a clock.
#pragma once
#include <cstdint>

namespace cohort::rl::math {

/// Thrown when the allowance is used up.
struct OutOfWork {};

struct Work {
  /// One step is a few nanoseconds (a limb of a big integer, a character): 3 million stay well
  /// below 100 ms.
  static constexpr int64_t kLimit = 3'000'000;

  int64_t limit = kLimit;
  int64_t steps = 0;

  void spend(int64_t n) {
    steps += n;
    if (steps > limit) throw OutOfWork{};
  }
};

}  // namespace cohort::rl::math
