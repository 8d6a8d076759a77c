// Which source each sample of a weighted mixture comes from.
#pragma once
#include <cstdint>
#include <vector>

namespace cohort::core {

/// A function of (weights, seed, sample) alone, computed in O(sources). Source 0 is told from the
/// rest by a Beatty sequence: of the first n samples floor(n p + phase) are its own. The rest,
/// numbered anew, is divided in the same way. So every source keeps its share in every stretch of
/// samples to within a few, whatever the length of the run.
class Mixture {
 public:
  struct Pick {
    int64_t source;  ///< Which source.
    int64_t index;   ///< How many earlier samples came from it.
  };

  /// Weights are finite, >= 0 and not all 0; they need not sum to 1.
  Mixture(const std::vector<double>& weights, uint64_t seed);
  Pick pick(int64_t sample) const;

 private:
  struct Level {
    uint64_t share;  ///< Of source `i` among the sources from `i` on, in units of 2^-62.
    uint64_t phase;  ///< In the same unit, below 1.
  };
  std::vector<Level> levels_;
};

}  // namespace cohort::core
