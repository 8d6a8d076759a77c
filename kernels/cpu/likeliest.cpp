#include "kernels/cpu/likeliest.h"

#include <algorithm>
#include <vector>

namespace cohort::kernels {
namespace {

template <class A>
struct Entry {
  A logit;
  int32_t token;
};

template <class A>
bool before(const Entry<A>& a, const Entry<A>& b) {
  return a.logit > b.logit || (a.logit == b.logit && a.token < b.token);
}

}  // namespace

template <class T>
void likeliest(T* logits, int64_t classes, int64_t k, int32_t* token, double* log_prob) {
  using A = Sum<T>;
  std::vector<Entry<A>> best;  // a heap, the last of them in front
  best.reserve(k);
  for (int64_t i = 0; i < classes; ++i) {
    const Entry<A> entry{to_sum(logits[i]), static_cast<int32_t>(i)};
    if (i >= k) {
      if (!before(entry, best.front())) continue;
      std::pop_heap(best.begin(), best.end(), before<A>);
      best.pop_back();
    }
    best.push_back(entry);
    std::push_heap(best.begin(), best.end(), before<A>);
  }
  std::sort_heap(best.begin(), best.end(), before<A>);
  const int64_t first = best[0].token;
  double of_first = 0, entropy = 0;
  token_log_probs<T>(logits, &first, 1, classes, 1.0, nullptr, &of_first, &entropy);
  for (int64_t i = 0; i < k; ++i) {
    token[i] = best[i].token;
    log_prob[i] =
        of_first + (static_cast<double>(best[i].logit) - static_cast<double>(best[0].logit));
  }
}

#define COHORT_INSTANTIATE(T) template void likeliest<T>(T*, int64_t, int64_t, int32_t*, double*);
COHORT_INSTANTIATE(float)
COHORT_INSTANTIATE(double)
COHORT_INSTANTIATE(bf16)
#undef COHORT_INSTANTIATE

}  // namespace cohort::kernels
