#include "moe/balance.h"

#include <algorithm>
#include <numeric>

namespace cohort::moe {

void update_bias(at::Tensor& bias_E, const at::Tensor& load_E, double gamma) {
  const at::Tensor excess = load_E.sum() - load_E * load_E.numel();  // E (mean - load), an integer
  bias_E.add_(at::sign(excess).to(bias_E.scalar_type()), gamma);
}

double max_violation(const at::Tensor& load_E) {
  const at::Tensor on_host = load_E.contiguous();
  const int64_t *load = on_host.const_data_ptr<int64_t>(), *end = load + on_host.numel();
  const int64_t total = std::accumulate(load, end, int64_t{0});
  if (total == 0) return 0;
  const double mean = static_cast<double>(total) / static_cast<double>(load_E.numel());
  return static_cast<double>(*std::max_element(load, end)) / mean - 1;
}

}  // namespace cohort::moe
