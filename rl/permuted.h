// A pseudo-random order of any number of things.
#pragma once
#include <algorithm>
#include <bit>
#include <cstdint>

#include "core/base/rng.h"

namespace cohort::rl {

/// Place `i` of a pseudo-random order of 0 .. n-1: a Feistel network over the next power of four,
/// walked until it lands below n. No table, so any place of any round costs the same.
inline int64_t permuted(int64_t i, int64_t n, uint64_t key) {
  const int half =
      std::max(1, (static_cast<int>(std::bit_width(static_cast<uint64_t>(n - 1))) + 1) / 2);
  const uint64_t mask = (uint64_t{1} << half) - 1;
  uint64_t value = static_cast<uint64_t>(i);
  do {
    uint64_t left = value >> half, right = value & mask;
    for (uint64_t round = 0; round < 4; ++round) {
      const uint64_t mixed = left ^ (core::random_bits(key, round, right) & mask);
      left = right;
      right = mixed;
    }
    value = left << half | right;
  } while (value >= static_cast<uint64_t>(n));
  return static_cast<int64_t>(value);
}

}  // namespace cohort::rl
