#include "core/data/mixture.h"

#include <cmath>

#include "core/base/error.h"
#include "core/base/rng.h"

namespace cohort::core {
namespace {

constexpr int kBits = 62;
constexpr uint64_t kOne = uint64_t{1} << kBits;

/// How many of the first n samples of a level are its source's.
int64_t taken(uint64_t share, uint64_t phase, int64_t n) {
  return static_cast<int64_t>((static_cast<unsigned __int128>(n) * share + phase) >> kBits);
}

}  // namespace

Mixture::Mixture(const std::vector<double>& weights, uint64_t seed) {
  double rest = 0;
  for (const double weight : weights) {
    COHORT_CHECK(std::isfinite(weight) && weight >= 0, "mixture weight {}", weight);
    rest += weight;
  }
  COHORT_CHECK(std::isfinite(rest) && rest > 0, "mixture weights sum to {}", rest);
  // Weights from the end, so that the last source with a weight takes all that is left, exactly.
  std::vector<double> suffix(weights.size() + 1, 0.0);
  for (size_t i = weights.size(); i-- > 0;) suffix[i] = suffix[i + 1] + weights[i];
  for (size_t i = 0; i < weights.size(); ++i) {
    const double share = suffix[i] > 0 ? weights[i] / suffix[i] : 0.0;
    const uint64_t phase = random_bits(seed, stream_of("data.mixture"), i) >> (64 - kBits);
    levels_.push_back({share >= 1.0 ? kOne : static_cast<uint64_t>(share * double{kOne}), phase});
  }
}

Mixture::Pick Mixture::pick(int64_t sample) const {
  int64_t index = sample;
  for (size_t i = 0; i < levels_.size(); ++i) {
    const auto [share, phase] = levels_[i];
    const int64_t before = taken(share, phase, index);
    if (taken(share, phase, index + 1) > before) return {static_cast<int64_t>(i), before};
    index -= before;
  }
  throw Error(fmt::format("sample {} belongs to none of {} sources", sample, levels_.size()));
}

}  // namespace cohort::core
