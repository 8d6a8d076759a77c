#include "kernels/cpu/sampling.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <vector>

namespace cohort::kernels {
namespace {

constexpr int64_t kPiece = 256;  // summed at a time, so that the walk skips most of the row

/// Zeroes everything below the k-th largest of e.
template <class A>
void keep_top_k(A* e, int64_t classes, int64_t k) {
  if (k <= 0 || k >= classes) return;
  std::vector<A> sorted(e, e + classes);
  std::nth_element(sorted.begin(), sorted.begin() + (k - 1), sorted.end(), std::greater<A>());
  const A least = sorted[k - 1];
  for (int64_t i = 0; i < classes; ++i)
    if (e[i] < least) e[i] = 0;
}

/// Keeps the largest until they hold `p` of the sum; ties go to the lower id.
template <class A>
void keep_top_p(A* e, int64_t classes, double p) {
  if (p >= 1) return;
  std::vector<int64_t> order;
  double total = 0;
  for (int64_t i = 0; i < classes; ++i) {
    if (e[i] <= 0) continue;
    order.push_back(i);
    total += e[i];
  }
  std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    return e[a] != e[b] ? e[a] > e[b] : a < b;
  });
  double held = 0;
  size_t kept = 0;
  while (kept < order.size() && (kept == 0 || held < p * total)) held += e[order[kept++]];
  for (size_t i = kept; i < order.size(); ++i) e[order[i]] = 0;
}

/// The first id at which the sum of e passes u times the total.
template <class A>
int64_t walk(const A* e, int64_t classes, double u) {
  const int64_t pieces = (classes + kPiece - 1) / kPiece;
  std::vector<double> sums(pieces);
  double total = 0;
  for (int64_t i = 0; i < pieces; ++i) {
    Vector<A> lanes = {};
    const int64_t begin = i * kPiece, count = std::min(kPiece, classes - begin);
    each_vector<A>(count,
                   [&](int64_t j, auto n) COHORT_LAMBDA { lanes += load(e + begin + j, n); });
    total += sums[i] = sum_of<A>(lanes);
  }
  double rest = u * total;
  int64_t last = -1;  // where rounding carries the walk past the end
  for (int64_t i = 0; i < pieces; ++i) {
    if (rest >= sums[i] && i + 1 < pieces) {
      rest -= sums[i];
      continue;
    }
    for (int64_t j = i * kPiece; j < std::min(classes, (i + 1) * kPiece); ++j) {
      if (e[j] <= 0) continue;
      last = j;
      rest -= e[j];
      if (rest < 0) return j;
    }
  }
  for (int64_t j = classes - 1; j >= 0 && last < 0; --j)
    if (e[j] > 0) last = j;
  return last;
}

}  // namespace

template <class T>
int64_t sample_token(
    const T* logits, int64_t classes, const SamplingRule& rule, double u, Sum<T>* work) {
  using A = Sum<T>;
  int64_t best = -1;
  for (int64_t i = 0; i < classes; ++i) {
    work[i] = to_sum(logits[i]);
    if (work[i] > (best < 0 ? -std::numeric_limits<A>::infinity() : work[best])) best = i;
  }
  if (best < 0 || rule.temperature <= 0) return best;
  const A top = work[best], inverse = static_cast<A>(1 / rule.temperature);
  each_vector<A>(classes, [&](int64_t i, auto n) COHORT_LAMBDA {
    const Vector<A> x = load(work + i, n);
    const Vector<A> e = exp_of((x - top) * inverse);
    store(work + i, x == x ? e : Vector<A>{}, n);
  });
  keep_top_k<A>(work, classes, rule.top_k);
  keep_top_p<A>(work, classes, rule.top_p);
  if (rule.min_p > 0)
    for (int64_t i = 0; i < classes; ++i)
      if (work[i] < rule.min_p) work[i] = 0;
  return walk<A>(work, classes, u);
}

#define COHORT_INSTANTIATE(T) \
  template int64_t sample_token<T>(const T*, int64_t, const SamplingRule&, double, Sum<T>*);
COHORT_INSTANTIATE(float)
COHORT_INSTANTIATE(double)
COHORT_INSTANTIATE(bf16)
#undef COHORT_INSTANTIATE

}  // namespace cohort::kernels
