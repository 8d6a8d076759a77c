#include "moe/balance.h"

namespace cohort::moe {

void update_bias(at::Tensor& bias_E, const at::Tensor& load_E, double gamma) {
  const at::Tensor excess = load_E.sum() - load_E * load_E.numel();  // E (mean - load), an integer
  bias_E.add_(at::sign(excess).to(bias_E.scalar_type()), gamma);
}

double max_violation(const at::Tensor& load_E) {
  const int64_t total = load_E.sum().item<int64_t>();
  if (total == 0) return 0;
  const double mean = static_cast<double>(total) / static_cast<double>(load_E.numel());
  return static_cast<double>(load_E.max().item<int64_t>()) / mean - 1;
}

}  // namespace cohort::moe
