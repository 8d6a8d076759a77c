#include "core/optim/adamw.h"

#include <cmath>

#include "core/base/device_branch.h"
#include "kernels/cpu/flat_updates.h"
#include "kernels/cpu/parallel.h"

namespace cohort::core {
namespace {

constexpr int64_t kGrain = 1 << 15;

/// What is the same for all elements is computed in double and then rounded, as torch does.
template <class T>
kernels::AdamWFactors<T> factors(const AdamWStep& s) {
  const double t = static_cast<double>(s.t);
  return {static_cast<T>(1 - s.lr * s.weight_decay),
          static_cast<T>(s.grad_scale),
          static_cast<T>(s.beta1),
          static_cast<T>(1 - s.beta1),
          static_cast<T>(s.beta2),
          static_cast<T>(1 - s.beta2),
          static_cast<T>(std::sqrt(1 - std::pow(s.beta2, t))),
          static_cast<T>(s.eps),
          static_cast<T>(-s.lr / (1 - std::pow(s.beta1, t)))};
}

template <class T>
void update(T* weight, const T* grad, T* exp_avg, T* exp_avg_sq, int64_t n, const AdamWStep& step) {
  const auto f = factors<T>(step);
  kernels::parallel_for(n, kGrain, [&](int64_t begin, int64_t end) {
    kernels::adamw(
        weight + begin, grad + begin, exp_avg + begin, exp_avg_sq + begin, end - begin, f);
  });
}

}  // namespace

void adamw_update(float* weight,
                  const float* grad,
                  float* exp_avg,
                  float* exp_avg_sq,
                  int64_t n,
                  const AdamWStep& step) {
  update(weight, grad, exp_avg, exp_avg_sq, n, step);
}

void adamw_update(double* weight,
                  const double* grad,
                  double* exp_avg,
                  double* exp_avg_sq,
                  int64_t n,
                  const AdamWStep& step) {
  update(weight, grad, exp_avg, exp_avg_sq, n, step);
}

void adamw_update(at::Tensor weight,
                  const at::Tensor& grad,
                  at::Tensor exp_avg,
                  at::Tensor exp_avg_sq,
                  const AdamWStep& step) {
  if (takes_device_branch(weight)) {
    const auto f = factors<double>(step);
    const at::Tensor g = grad * f.grad_scale;
    exp_avg.lerp_(g, f.one_minus_beta1);
    exp_avg_sq.mul_(f.beta2).addcmul_(g, g, f.one_minus_beta2);
    weight.mul_(f.decay).addcdiv_(
        exp_avg, (exp_avg_sq.sqrt() / f.bias2_sqrt).add_(f.eps), f.minus_step_size);
    return;
  }
  const auto with = [&]<class T>(T) {
    adamw_update(weight.data_ptr<T>(),
                 grad.const_data_ptr<T>(),
                 exp_avg.data_ptr<T>(),
                 exp_avg_sq.data_ptr<T>(),
                 weight.numel(),
                 step);
  };
  if (weight.scalar_type() == at::kDouble)
    with(double{});
  else
    with(float{});
}

}  // namespace cohort::core
