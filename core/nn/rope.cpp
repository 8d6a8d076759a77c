#include "core/nn/rope.h"

#include <torch/csrc/autograd/custom_function.h>

#include <cmath>
#include <numbers>

#include "core/base/device_branch.h"
#include "core/nn/device/rotation.h"
#include "core/nn/kernel_types.h"
#include "kernels/cpu/rope.h"

namespace cohort::core {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// YaRN's temperature for a context stretched `factor` times (arXiv:2309.00071, eq. 22, with
/// DeepSeek's weight `mscale`).
double yarn_mscale(double factor, double mscale) {
  return factor <= 1 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
}

void check(const RopeConfig& config, int64_t dim) {
  COHORT_CHECK_INPUT(dim > 0 && dim % 2 == 0,
                     "model: the head size that rotates must be even and positive, not {}",
                     dim);
  COHORT_CHECK_INPUT(
      config.rope_theta > 1, "model.rope.rope_theta: must be above 1, not {}", config.rope_theta);
  COHORT_CHECK_INPUT(config.rope_type == "default" || config.rope_type == "yarn",
                     "model.rope.rope_type: '{}' is not known; use default or yarn",
                     config.rope_type);
  if (config.rope_type == "default") return;
  COHORT_CHECK_INPUT(config.factor >= 1,
                     "model.rope.factor: yarn needs a factor of at least 1, not {}",
                     config.factor);
  COHORT_CHECK_INPUT(
      config.original_max_position_embeddings > 0,
      "model.rope.original_max_position_embeddings: yarn needs the length that the model "
      "was trained for, not {}",
      config.original_max_position_embeddings);
  COHORT_CHECK_INPUT(config.beta_fast > 0 && config.beta_slow > 0,
                     "model.rope.beta_fast, beta_slow: must be positive, not {} and {}",
                     config.beta_fast,
                     config.beta_slow);
}

}  // namespace

RopeFrequencies rope_frequencies(const RopeConfig& config, int64_t dim) {
  check(config, dim);
  const double base = config.rope_theta;
  RopeFrequencies f{at::empty({dim / 2}, at::kDouble), 1.0, 1.0};
  double* inv_freq = f.inv_freq.data_ptr<double>();
  for (int64_t i = 0; i < dim / 2; ++i)
    inv_freq[i] = std::pow(base, -static_cast<double>(2 * i) / static_cast<double>(dim));
  if (config.rope_type == "default") return f;

  // The channel that turns `rotations` times within the original length (arXiv:2309.00071, eq. 17).
  // Channels that turn more often than beta_fast stay, those below beta_slow are stretched, with a
  // ramp between.
  const double length = static_cast<double>(config.original_max_position_embeddings);
  const auto channel_of = [&](double rotations) {
    return static_cast<double>(dim) * std::log(length / (rotations * 2 * std::numbers::pi)) /
           (2 * std::log(base));
  };
  const double low = std::max(std::floor(channel_of(config.beta_fast)), 0.0);
  double high = std::min(std::ceil(channel_of(config.beta_slow)), static_cast<double>(dim - 1));
  if (low == high) high += 0.001;
  for (int64_t i = 0; i < dim / 2; ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    inv_freq[i] = inv_freq[i] / config.factor * ramp + inv_freq[i] * (1 - ramp);
  }
  f.attention_factor = config.mscale != 0 && config.mscale_all_dim != 0
                           ? yarn_mscale(config.factor, config.mscale) /
                                 yarn_mscale(config.factor, config.mscale_all_dim)
                           : yarn_mscale(config.factor, 1.0);
  if (config.mscale_all_dim != 0)
    f.softmax_factor = std::pow(yarn_mscale(config.factor, config.mscale_all_dim), 2);
  return f;
}

RopeTable rope_table(const RopeConfig& config, int64_t dim, int64_t length, at::ScalarType dtype) {
  const auto f = rope_frequencies(config, dim);
  const auto angle =
      at::arange(length, at::TensorOptions().dtype(at::kDouble)).unsqueeze(1) * f.inv_freq;
  const auto kept = sum_dtype(dtype);
  return {(angle.cos() * f.attention_factor).to(kept),
          (angle.sin() * f.attention_factor).to(kept),
          f.softmax_factor};
}

namespace {

at::Tensor rotate(
    const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, bool interleave, int sign) {
  auto y = at::empty(x.sizes(), x.options());
  with_kernel_type("apply_rope", x, [&]<class T>(T) {
    kernels::rope<T>(elements<T>(x),
                     {x.stride(0), x.stride(1), x.stride(2)},
                     elements<kernels::Sum<T>>(cos),
                     elements<kernels::Sum<T>>(sin),
                     x.size(0),
                     x.size(1),
                     x.size(2),
                     x.size(3),
                     interleave,
                     sign,
                     elements<T>(y));
  });
  return y;
}

struct Rope : torch::autograd::Function<Rope> {
  static at::Tensor forward(AutogradContext* ctx,
                            const at::Tensor& x,
                            const at::Tensor& cos,
                            const at::Tensor& sin,
                            bool interleave) {
    ctx->save_for_backward({cos, sin});
    ctx->saved_data["interleave"] = interleave;
    return rotate(x, cos, sin, interleave, 1);
  }
  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const auto saved = ctx->get_saved_variables();
    const auto d_y = gradients[0].stride(-1) == 1 ? gradients[0] : gradients[0].contiguous();
    return {rotate(d_y, saved[0], saved[1], ctx->saved_data["interleave"].toBool(), -1),
            at::Tensor(),
            at::Tensor(),
            at::Tensor()};
  }
};

}  // namespace

at::Tensor apply_rope(const at::Tensor& x, const RopeTable& table, bool interleave) {
  COHORT_CHECK(x.dim() == 4 && x.size(3) == 2 * table.cos.size(1) && x.size(1) <= table.cos.size(0),
               "apply_rope: x must be [B, S, H, {}] with S up to {}, not {}",
               2 * table.cos.size(1),
               table.cos.size(0),
               fmt::join(x.sizes(), " x "));
  const auto dtype = sum_dtype(x.scalar_type());
  if (takes_device_branch(x)) {
    const auto of_tokens = [&](const at::Tensor& table) {
      return table.narrow(0, 0, x.size(1)).unsqueeze(1);
    };
    return device::rotated(x, of_tokens(table.cos), of_tokens(table.sin), interleave)
        .to(x.scalar_type());
  }
  return Rope::apply(x.stride(-1) == 1 ? x : x.contiguous(),
                     table.cos.to(dtype).contiguous(),
                     table.sin.to(dtype).contiguous(),
                     interleave);
}

}  // namespace cohort::core
