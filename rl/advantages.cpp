#include "rl/advantages.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/base/error.h"

namespace cohort::rl {
namespace {

constexpr double kLeastDeviation = 1e-4;

double mean_of(const double* values, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += values[i];
  return sum / static_cast<double>(n);
}

/// With n - 1 under the root; n >= 2.
double deviation_of(const double* values, int64_t n, double mean) {
  double squares = 0;
  for (int64_t i = 0; i < n; ++i) squares += (values[i] - mean) * (values[i] - mean);
  return std::sqrt(squares / static_cast<double>(n - 1));
}

/// Of the rewards of all ranks. They are gathered and sorted before they are added, so that the sum
/// does not depend on the ranks that they came from. 0 when there is no reward anywhere.
double batch_deviation(const at::Tensor& rewards, distributed::Communicator& dp) {
  auto most = at::full({1}, rewards.size(0), at::kLong);
  dp.all_reduce(most, distributed::ReduceOp::kMax);
  const int64_t places = most.item<int64_t>();
  if (places == 0) return 0;
  const auto mine = at::full({places}, std::nan(""), rewards.options());
  mine.narrow(0, 0, rewards.size(0)).copy_(rewards);
  auto gathered = at::empty({places * dp.size()}, rewards.options());
  dp.all_gather(gathered, mine);
  const double* begin = gathered.const_data_ptr<double>();
  std::vector<double> all;
  std::copy_if(begin, begin + gathered.numel(), std::back_inserter(all), [](double r) {
    return !std::isnan(r);
  });
  std::sort(all.begin(), all.end());
  const int64_t n = static_cast<int64_t>(all.size());
  return deviation_of(all.data(), n, mean_of(all.data(), n));
}

void check(const at::Tensor& rewards, int64_t group_size) {
  COHORT_CHECK(rewards.dim() == 1 && rewards.scalar_type() == at::kDouble && rewards.is_cpu(),
               "advantages: rewards must be one row of fp64 on the CPU, not {} {}",
               fmt::join(rewards.sizes(), " x "),
               at::toString(rewards.scalar_type()));
  COHORT_CHECK(group_size >= 2 && rewards.size(0) % group_size == 0,
               "advantages: {} rewards are not groups of {}, or a group is fewer than 2",
               rewards.size(0),
               group_size);
}

}  // namespace

AdvantageScale advantage_scale(const std::string& name) {
  if (name == "group") return AdvantageScale::kGroup;
  if (name == "batch") return AdvantageScale::kBatch;
  COHORT_CHECK_INPUT(name == "none", "advantage scale '{}': should be group, batch or none", name);
  return AdvantageScale::kNone;
}

at::Tensor advantages(const at::Tensor& rewards,
                      int64_t group_size,
                      AdvantageScale scale,
                      distributed::Communicator& dp) {
  check(rewards, group_size);
  const auto row = rewards.contiguous();
  const double* r = row.const_data_ptr<double>();
  const int64_t n = row.size(0);
  for (int64_t i = 0; i < n; ++i)
    COHORT_CHECK(std::isfinite(r[i]), "advantages: reward {} of {} is {}", i, n, r[i]);
  const double of_batch = scale == AdvantageScale::kBatch ? batch_deviation(row, dp) : 0;
  auto out = at::zeros_like(row);
  double* a = out.data_ptr<double>();
  for (int64_t begin = 0; begin < n; begin += group_size) {
    const double* group = r + begin;
    // The mean of equal numbers may differ from them in the last bit.
    if (std::all_of(group, group + group_size, [&](double x) { return x == group[0]; })) continue;
    const double mean = mean_of(group, group_size);
    const double divisor = scale == AdvantageScale::kNone ? 1
                           : scale == AdvantageScale::kBatch
                               ? of_batch + kLeastDeviation
                               : deviation_of(group, group_size, mean) + kLeastDeviation;
    for (int64_t i = 0; i < group_size; ++i) a[begin + i] = (group[i] - mean) / divisor;
  }
  return out;
}

}  // namespace cohort::rl
