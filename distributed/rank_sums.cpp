#include "distributed/rank_sums.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <type_traits>

#include "core/base/error.h"

namespace cohort::distributed {
namespace {

constexpr int64_t kBlock = 1024;  // Sums of a block stay in the first-level cache.
constexpr int64_t kGrain = 1 << 16;

template <class Sum, class T, class Combine>
void reduce_range(T* out,
                  const std::vector<const void*>& rows,
                  int64_t begin,
                  int64_t end,
                  const Combine& combine) {
  Sum sums[kBlock];
  for (int64_t at = begin; at < end; at += kBlock) {
    const int64_t n = std::min(kBlock, end - at);
    const T* first = static_cast<const T*>(rows[0]) + at;
    for (int64_t i = 0; i < n; ++i) sums[i] = static_cast<Sum>(first[i]);
    for (size_t r = 1; r < rows.size(); ++r) {
      const T* row = static_cast<const T*>(rows[r]) + at;
#pragma omp simd
      for (int64_t i = 0; i < n; ++i) sums[i] = combine(sums[i], static_cast<Sum>(row[i]));
    }
    for (int64_t i = 0; i < n; ++i) out[at + i] = static_cast<T>(sums[i]);
  }
}

template <class Sum, class T>
void reduce(void* out, const std::vector<const void*>& rows, int64_t n, ReduceOp op) {
  T* to = static_cast<T*>(out);
  at::parallel_for(0, n, kGrain, [&](int64_t begin, int64_t end) {
    switch (op) {
      case ReduceOp::kSum:
        reduce_range<Sum>(to, rows, begin, end, [](Sum a, Sum b) { return a + b; });
        break;
      case ReduceOp::kMax:
        reduce_range<Sum>(
            to, rows, begin, end, [](Sum a, Sum b) { return b > a || b != b ? b : a; });
        break;
      case ReduceOp::kMin:
        reduce_range<Sum>(
            to, rows, begin, end, [](Sum a, Sum b) { return b < a || b != b ? b : a; });
        break;
    }
  });
}

}  // namespace

void reduce_rows(
    void* out, const std::vector<const void*>& rows, int64_t n, at::ScalarType dtype, ReduceOp op) {
  switch (dtype) {
    case at::kFloat:
      return reduce<float, float>(out, rows, n, op);
    case at::kDouble:
      return reduce<double, double>(out, rows, n, op);
    case at::kBFloat16:
      return reduce<float, at::BFloat16>(out, rows, n, op);
    case at::kLong:
      return reduce<int64_t, int64_t>(out, rows, n, op);
    default:
      throw Error(
          fmt::format("reductions take fp32, fp64, bf16 and int64, not {}", c10::toString(dtype)));
  }
}

}  // namespace cohort::distributed
