// How many rows of logits the passes over an output head take at a time.
#pragma once
#include <algorithm>
#include <cstdint>

namespace cohort::core {

/// Enough rows for the products to run at full speed, and for usual vocabularies few enough bytes
/// (2^20 logits) to stay in the last-level cache.
inline int64_t rows_of_logits(int64_t classes) {
  return std::max((int64_t{1} << 20) / classes, int64_t{256});
}

}  // namespace cohort::core
