#include "core/optim/gradient_norm.h"

#include <algorithm>
#include <vector>

#include "core/base/error.h"
#include "core/optim/vector_clones.h"
#include "kernels/cpu/parallel.h"

namespace cohort::core {
namespace {

constexpr int64_t kBlock = 4096;
constexpr int64_t kGrain = 1 << 15;

template <class T>
inline __attribute__((always_inline)) double block_sum(const T* values, int64_t n) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(values[i]) * values[i];
  return sum;
}
COHORT_VECTOR_CLONES double block_sum_floats(const float* values, int64_t n) {
  return block_sum(values, n);
}
COHORT_VECTOR_CLONES double block_sum_doubles(const double* values, int64_t n) {
  return block_sum(values, n);
}

template <class T, class BlockSum>
double sum_of_blocks(const T* values, int64_t n, const BlockSum& of_block) {
  const int64_t num_blocks = (n + kBlock - 1) / kBlock;
  std::vector<double> sums(num_blocks);
  kernels::parallel_for(num_blocks, kGrain / kBlock, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b)
      sums[b] = of_block(values + b * kBlock, std::min(kBlock, n - b * kBlock));
  });
  double total = 0;
  for (const double sum : sums) total += sum;
  return total;
}

COHORT_VECTOR_CLONES void accumulate_range(float* __restrict to,
                                           const uint16_t* __restrict from,
                                           int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t bits = static_cast<uint32_t>(from[i]) << 16;  // bf16 is the upper half of fp32.
    float value;
    __builtin_memcpy(&value, &bits, sizeof value);
    to[i] += value;
  }
}

}  // namespace

double sum_of_squares(const at::Tensor& values) {
  COHORT_CHECK(values.is_contiguous(), "sum_of_squares takes a contiguous tensor");
  if (values.scalar_type() == at::kFloat)
    return sum_of_blocks(values.data_ptr<float>(), values.numel(), block_sum_floats);
  COHORT_CHECK(values.scalar_type() == at::kDouble,
               "sum_of_squares takes fp32 or fp64, not {}",
               c10::toString(values.scalar_type()));
  return sum_of_blocks(values.data_ptr<double>(), values.numel(), block_sum_doubles);
}

void accumulate(float* to, const at::BFloat16* from, int64_t n) {
  const auto* bits = reinterpret_cast<const uint16_t*>(from);
  kernels::parallel_for(n, kGrain, [&](int64_t begin, int64_t end) {
    accumulate_range(to + begin, bits + begin, end - begin);
  });
}

}  // namespace cohort::core
