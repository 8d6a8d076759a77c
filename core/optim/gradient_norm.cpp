#include "core/optim/gradient_norm.h"

#include <algorithm>
#include <vector>

#include "core/base/device_branch.h"
#include "core/base/error.h"
#include "kernels/cpu/flat_updates.h"
#include "kernels/cpu/parallel.h"

namespace cohort::core {
namespace {

constexpr int64_t kBlock = 4096;
constexpr int64_t kGrain = 1 << 15;

template <class T>
double sum_of_blocks(const T* values, int64_t n) {
  const int64_t num_blocks = (n + kBlock - 1) / kBlock;
  std::vector<double> sums(num_blocks);
  kernels::parallel_for(num_blocks, kGrain / kBlock, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b)
      sums[b] = kernels::sum_of_squares(values + b * kBlock, std::min(kBlock, n - b * kBlock));
  });
  double total = 0;
  for (const double sum : sums) total += sum;
  return total;
}

}  // namespace

double sum_of_squares(const at::Tensor& values) {
  COHORT_CHECK(values.is_contiguous(), "sum_of_squares takes a contiguous tensor");
  if (takes_device_branch(values)) return host_value(sum_of_squares_on_device(values));
  if (values.scalar_type() == at::kFloat)
    return sum_of_blocks(values.data_ptr<float>(), values.numel());
  COHORT_CHECK(values.scalar_type() == at::kDouble,
               "sum_of_squares takes fp32 or fp64, not {}",
               c10::toString(values.scalar_type()));
  return sum_of_blocks(values.data_ptr<double>(), values.numel());
}

at::Tensor sum_of_squares_on_device(const at::Tensor& values) {
  return at::linalg_vector_norm(values, 2, std::nullopt, false, at::kDouble).square();
}

void accumulate(float* to, const at::BFloat16* from, int64_t n) {
  const auto* bits = reinterpret_cast<const uint16_t*>(from);
  kernels::parallel_for(n, kGrain, [&](int64_t begin, int64_t end) {
    kernels::accumulate_bf16(to + begin, bits + begin, end - begin);
  });
}

void accumulate(at::Tensor& to, const at::Tensor& from) {
  if (takes_device_branch(to))
    to.add_(from);
  else
    accumulate(to.data_ptr<float>(), from.const_data_ptr<at::BFloat16>(), from.numel());
}

}  // namespace cohort::core
