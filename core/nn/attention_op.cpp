#include "core/nn/attention_op.h"

#include <torch/csrc/autograd/custom_function.h>

#include "core/base/device_branch.h"
#include "core/nn/device/attention.h"
#include "core/nn/kernel_types.h"
#include "kernels/cpu/attention.h"

namespace cohort::core {
namespace {

using kernels::AttentionOperands;
using kernels::AttentionProblem;
using kernels::AttentionRun;
using kernels::HeadRows;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// [B, S, ..., C] whose tokens lie one fixed stride apart and whose channels are contiguous.
at::Tensor with_token_stride(const at::Tensor& x) {
  const bool one_stride = x.size(0) == 1 || x.stride(0) == x.stride(1) * x.size(1);
  return one_stride && x.stride(-1) == 1 ? x : x.contiguous();
}

/// Rows of channels [offset, ...) of x [B, S, H, C] or [B, S, C].
template <class T>
HeadRows<T> head_rows(const at::Tensor& x, int64_t offset = 0) {
  if (!x.defined()) return {};
  return {elements<T>(x) + offset, x.stride(1), x.dim() == 4 ? x.stride(2) : 0};
}

/// Keys beside values in one tensor when v is undefined.
template <class T>
AttentionOperands<T> operands(const at::Tensor& q,
                              const at::Tensor& k,
                              const at::Tensor& k_shared,
                              const at::Tensor& v,
                              int64_t v_dim) {
  return {head_rows<T>(q),
          head_rows<T>(k),
          head_rows<T>(k_shared),
          v.defined() ? head_rows<T>(v) : head_rows<T>(k, k.size(3) - v_dim)};
}

/// Everything besides the operands; `runs` is a tensor so that the graph can keep it.
struct Plan {
  at::Tensor runs, cos, sin;  ///< runs: int64 [n, 3], an AttentionRun a row.
  bool interleave;
  double scale;
  int64_t v_dim;
};

template <class T>
AttentionProblem<T> problem(const at::Tensor& q,
                            const at::Tensor& k,
                            const at::Tensor& k_shared,
                            const Plan& plan) {
  AttentionProblem<T> p;
  p.runs = static_cast<const AttentionRun*>(plan.runs.data_ptr());
  p.num_runs = plan.runs.size(0);
  p.tokens = q.size(0) * q.size(1);
  p.heads = q.size(2);
  p.kv_heads = k.size(2);
  p.qk_dim = q.size(3);
  p.v_dim = plan.v_dim;
  p.rope_dim = plan.cos.defined() ? 2 * plan.cos.size(1) : 0;
  p.shared_dim = k_shared.defined() ? k_shared.size(2) : 0;
  p.interleave = plan.interleave;
  p.scale = plan.scale;
  p.cos = elements<kernels::Sum<T>>(plan.cos);
  p.sin = elements<kernels::Sum<T>>(plan.sin);
  return p;
}

struct AttentionFunction : torch::autograd::Function<AttentionFunction> {
  static at::Tensor forward(AutogradContext* ctx,
                            const at::Tensor& q,
                            const at::Tensor& k,
                            const std::optional<at::Tensor>& maybe_k_shared,
                            const std::optional<at::Tensor>& maybe_v,
                            const Plan& plan) {
    const auto k_shared = maybe_k_shared.value_or(at::Tensor()), v = maybe_v.value_or(at::Tensor());
    auto out = at::empty({q.size(0), q.size(1), q.size(2), plan.v_dim}, q.options());
    auto log_sum =
        at::empty({q.size(0), q.size(1), q.size(2)}, q.options().dtype(sum_dtype(q.scalar_type())));
    with_kernel_type("attention", q, [&]<class T>(T) {
      kernels::attention_forward<T>(problem<T>(q, k, k_shared, plan),
                                    operands<const T>(q, k, k_shared, v, plan.v_dim),
                                    elements<T>(out),
                                    elements<kernels::Sum<T>>(log_sum));
    });
    ctx->save_for_backward({q, k, k_shared, v, out, log_sum, plan.runs, plan.cos, plan.sin});
    ctx->saved_data["interleave"] = plan.interleave;
    ctx->saved_data["scale"] = plan.scale;
    return out;
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    const auto saved = ctx->get_saved_variables();
    const auto &q = saved[0], &k = saved[1], &k_shared = saved[2], &v = saved[3], &out = saved[4];
    const Plan plan{saved[6],
                    saved[7],
                    saved[8],
                    ctx->saved_data["interleave"].toBool(),
                    ctx->saved_data["scale"].toDouble(),
                    out.size(3)};
    const auto d_out = with_token_stride(gradients[0]);
    const auto like = [](const at::Tensor& x) {
      return x.defined() ? at::empty(x.sizes(), x.options()) : at::Tensor();
    };
    const auto d_q = like(q), d_k = like(k), d_k_shared = like(k_shared), d_v = like(v);
    with_kernel_type("attention", q, [&]<class T>(T) {
      kernels::attention_backward<T>(problem<T>(q, k, k_shared, plan),
                                     operands<const T>(q, k, k_shared, v, plan.v_dim),
                                     elements<T>(out),
                                     elements<kernels::Sum<T>>(saved[5]),
                                     head_rows<const T>(d_out),
                                     operands<T>(d_q, d_k, d_k_shared, d_v, plan.v_dim));
    });
    return {d_q, d_k, d_k_shared, d_v, at::Tensor()};
  }
};

/// The kernels trust their arguments: every number is checked here.
void check(const AttentionInputs& in, const Rotation& rotation, const AttentionLayout& layout) {
  const auto &q = in.q, &k = in.k;
  COHORT_CHECK(q.dim() == 4 && k.dim() == 4 && q.size(0) == layout.batch &&
                   q.size(1) == layout.seq_len && k.size(0) == q.size(0) && k.size(1) == q.size(1),
               "attention: q {} and k {} do not fit a layout of {} x {} tokens",
               fmt::join(q.sizes(), " x "),
               fmt::join(k.sizes(), " x "),
               layout.batch,
               layout.seq_len);
  COHORT_CHECK(k.size(2) > 0 && q.size(2) % k.size(2) == 0,
               "attention: {} query heads cannot share {} key heads",
               q.size(2),
               k.size(2));
  for (const auto* x : {&in.k, &in.k_shared, &in.v})
    COHORT_CHECK(!x->defined() || x->scalar_type() == q.scalar_type(),
                 "attention: {} beside {}",
                 at::toString(x->scalar_type()),
                 at::toString(q.scalar_type()));
  const int64_t own = q.size(3) - (in.k_shared.defined() ? in.k_shared.size(2) : 0);
  COHORT_CHECK(own >= 0 && (in.v.defined() ? k.size(3) == own : k.size(3) > own),
               "attention: keys of {} channels for queries of {}",
               k.size(3),
               q.size(3));
  COHORT_CHECK(!in.v.defined() || (in.v.dim() == 4 && in.v.size(0) == k.size(0) &&
                                   in.v.size(1) == k.size(1) && in.v.size(2) == k.size(2)),
               "attention: values {} for keys {}",
               fmt::join(in.v.sizes(), " x "),
               fmt::join(k.sizes(), " x "));
  COHORT_CHECK(
      !in.k_shared.defined() || (in.k_shared.dim() == 3 && in.k_shared.size(0) == k.size(0) &&
                                 in.k_shared.size(1) == k.size(1)),
      "attention: shared keys {} for keys {}",
      fmt::join(in.k_shared.sizes(), " x "),
      fmt::join(k.sizes(), " x "));
  if (!rotation.cos.defined()) return;
  for (const auto& run : layout.runs)
    COHORT_CHECK(run.position >= 0 && run.position + run.count <= rotation.cos.size(0),
                 "attention: {} tokens from position {} but a rope table of {} positions",
                 run.count,
                 run.position,
                 rotation.cos.size(0));
  COHORT_CHECK(in.k_shared.defined() ? 2 * rotation.cos.size(1) == in.k_shared.size(2)
                                     : 2 * rotation.cos.size(1) <= q.size(3),
               "attention: a rope table for {} channels does not fit the keys",
               2 * rotation.cos.size(1));
}

}  // namespace

at::Tensor attention_op(const AttentionInputs& in,
                        const Rotation& rotation,
                        const AttentionLayout& layout,
                        double scale) {
  check(in, rotation, layout);
  if (takes_device_branch(in.q)) return device::attention(in, rotation, layout, scale);
  const auto dtype = sum_dtype(in.q.scalar_type());
  auto runs = at::empty({static_cast<int64_t>(layout.runs.size()), 3}, at::kLong);
  auto* run = static_cast<AttentionRun*>(runs.data_ptr());
  for (const auto& r : layout.runs)
    *run++ = {r.row * layout.seq_len + r.first, r.position, r.count};
  const int64_t own = in.q.size(3) - (in.k_shared.defined() ? in.k_shared.size(2) : 0);
  Plan plan{
      runs, {}, {}, rotation.interleave, scale, in.v.defined() ? in.v.size(3) : in.k.size(3) - own};
  if (rotation.cos.defined()) {
    plan.cos = rotation.cos.to(dtype).contiguous();
    plan.sin = rotation.sin.to(dtype).contiguous();
  }
  const auto optional = [](const at::Tensor& x) {
    return x.defined() ? std::optional<at::Tensor>(with_token_stride(x)) : std::nullopt;
  };
  return AttentionFunction::apply(with_token_stride(in.q),
                                  with_token_stride(in.k),
                                  optional(in.k_shared),
                                  optional(in.v),
                                  plan);
}

}  // namespace cohort::core
