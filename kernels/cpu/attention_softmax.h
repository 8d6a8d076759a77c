// The softmax of one row of attention scores, for training and decoding alike: the same bits.
#pragma once
#include <cstdint>
#include <limits>
#include <utility>

#include "kernels/cpu/attention_pack.h"
#include "kernels/cpu/simd.h"

namespace cohort::kernels {

/// Softmax without the division: scores := e^(scale scores - top) on keys [0, visible), zeros up to
/// `padded`. Gives the sum and the top.
template <class A>
std::pair<A, A> softmax_row(A* scores, int64_t visible, int64_t padded, A scale) {
  const A lowest = -std::numeric_limits<A>::infinity();
  for (int64_t j = visible; j < round_up(visible, kLanes<A>); ++j) scores[j] = lowest;
  Vector<A> tops = splat<A>(lowest);
  for (int64_t j = 0; j < visible; j += kLanes<A>) {
    const auto v = load(scores + j);
    tops = v > tops ? v : tops;
  }
  const A top = max_of<A>(tops) * scale;
  Vector<A> sums = {};
  for (int64_t j = 0; j < visible; j += kLanes<A>) {
    const auto e = exp_of(load(scores + j) * scale - top);
    sums += e;
    store(scores + j, e);
  }
  for (int64_t j = round_up(visible, kLanes<A>); j < padded; ++j) scores[j] = 0;
  return {sum_of<A>(sums), top};
}

}  // namespace cohort::kernels
