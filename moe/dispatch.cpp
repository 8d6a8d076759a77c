#include "moe/dispatch.h"

#include <torch/csrc/autograd/custom_function.h>

#include <numeric>

#include "core/base/device_branch.h"
#include "core/base/error.h"
#include "core/nn/kernel_types.h"
#include "kernels/cpu/dispatch.h"
#include "moe/device/dispatch.h"

namespace cohort::moe {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

at::Tensor gather(const at::Tensor& rows, const at::Tensor& index, int64_t divisor) {
  if (core::takes_device_branch(rows)) return device::gather(rows, index, divisor);
  at::Tensor result = at::empty({index.numel(), rows.size(1)}, rows.options());
  core::with_kernel_type("dispatch", rows, [&]<class Row>(Row) {
    kernels::gather_rows(core::elements<Row>(rows),
                         core::elements<int64_t>(index),
                         divisor,
                         index.numel(),
                         rows.size(1),
                         core::elements<Row>(result));
  });
  return result;
}

at::Tensor scatter(const at::Tensor& rows, const at::Tensor& index) {
  if (core::takes_device_branch(rows)) return device::scatter(rows, index);
  at::Tensor result = at::empty_like(rows);
  core::with_kernel_type("dispatch", rows, [&]<class Row>(Row) {
    kernels::scatter_rows(core::elements<Row>(rows),
                          core::elements<int64_t>(index),
                          rows.size(0),
                          rows.size(1),
                          core::elements<Row>(result));
  });
  return result;
}

/// Pairs in expert order at home -> rows in expert order at their experts.
at::Tensor to_experts(const at::Tensor& pairs, const DispatchPlan& plan) {
  if (plan.ep->size() == 1) return pairs;
  at::Tensor received = at::empty({plan.expert_place.numel(), pairs.size(1)}, pairs.options());
  plan.ep->all_to_all_v(received, plan.receive_rows, pairs, plan.send_rows);
  return scatter(received, plan.expert_place);
}

/// The way back.
at::Tensor from_experts(const at::Tensor& rows, const DispatchPlan& plan) {
  if (plan.ep->size() == 1) return rows;
  const at::Tensor leaving = gather(rows, plan.expert_place, 1);
  at::Tensor pairs = at::empty({plan.T * plan.K, rows.size(1)}, rows.options());
  plan.ep->all_to_all_v(pairs, plan.send_rows, leaving, plan.receive_rows);
  return pairs;
}

at::Tensor sum_pairs(const at::Tensor& pairs, const at::Tensor& gate, const DispatchPlan& plan) {
  if (core::takes_device_branch(pairs))
    return device::combine(pairs, gate, plan.place_of, plan.T, plan.K);
  at::Tensor result = at::empty({plan.T, pairs.size(1)}, pairs.options());
  core::with_kernel_type("combine", pairs, [&]<class Row>(Row) {
    kernels::combine_rows(core::elements<Row>(pairs),
                          core::elements<int64_t>(plan.place_of),
                          core::elements<kernels::Sum<Row>>(gate),
                          plan.T,
                          plan.K,
                          pairs.size(1),
                          core::elements<Row>(result));
  });
  return result;
}

void save_plan(AutogradContext* context, const DispatchPlanPtr& plan) {
  context->saved_data["plan"] = c10::IValue::make_capsule(plan);
}
const DispatchPlan& saved_plan(AutogradContext* context) {
  return static_cast<const DispatchPlan&>(*context->saved_data["plan"].toCapsule());
}

struct DispatchFunction : torch::autograd::Function<DispatchFunction> {
  static at::Tensor forward(AutogradContext* context,
                            const at::Tensor& x_TD,
                            const DispatchPlanPtr& plan) {
    save_plan(context, plan);
    return to_experts(gather(x_TD.contiguous(), plan->pair_at, plan->K), *plan);
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const DispatchPlan& plan = saved_plan(context);
    const at::Tensor pairs = from_experts(gradients[0].contiguous(), plan);
    return {sum_pairs(pairs, {}, plan), at::Tensor()};
  }
};

struct CombineFunction : torch::autograd::Function<CombineFunction> {
  static at::Tensor forward(AutogradContext* context,
                            const at::Tensor& y_RD,
                            const at::Tensor& gate_TK,
                            const DispatchPlanPtr& plan) {
    const at::Tensor pairs = from_experts(y_RD.contiguous(), *plan);
    const at::Tensor gate = gate_TK.contiguous();
    save_plan(context, plan);
    context->save_for_backward({pairs, gate});
    return sum_pairs(pairs, gate, *plan);
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &pairs = saved[0], &gate = saved[1];
    const DispatchPlan& plan = saved_plan(context);
    const at::Tensor d_out = gradients[0].contiguous();
    if (core::takes_device_branch(pairs)) {
      const auto gradient = device::combine_backward(d_out, pairs, gate, plan.place_of);
      return {to_experts(gradient.d_pairs, plan), gradient.d_gate, at::Tensor()};
    }
    at::Tensor d_pairs = at::empty_like(pairs), d_gate = at::empty_like(gate);
    core::with_kernel_type("combine", pairs, [&]<class Row>(Row) {
      kernels::combine_rows_backward(core::elements<Row>(d_out),
                                     core::elements<Row>(pairs),
                                     core::elements<int64_t>(plan.place_of),
                                     core::elements<kernels::Sum<Row>>(gate),
                                     plan.T,
                                     plan.K,
                                     pairs.size(1),
                                     core::elements<Row>(d_pairs),
                                     core::elements<kernels::Sum<Row>>(d_gate));
    });
    return {to_experts(d_pairs, plan), d_gate, at::Tensor()};
  }
};

void sort_on_cpu(const at::Tensor& expert, int64_t num_experts, DispatchPlan& plan) {
  const int64_t num_pairs = expert.numel();
  plan.pair_at = at::empty({num_pairs}, at::kLong);
  plan.place_of = at::empty({num_pairs}, at::kLong);
  plan.load_E = at::empty({num_experts}, at::kLong);
  kernels::sort_pairs(expert.contiguous().const_data_ptr<int64_t>(),
                      num_pairs,
                      num_experts,
                      plan.load_E.data_ptr<int64_t>(),
                      plan.pair_at.data_ptr<int64_t>(),
                      plan.place_of.data_ptr<int64_t>());
}

}  // namespace

DispatchPlanPtr plan_dispatch(const at::Tensor& expert_TK,
                              int64_t num_experts,
                              std::shared_ptr<distributed::Communicator> ep) {
  auto plan = c10::make_intrusive<DispatchPlan>();
  plan->T = expert_TK.size(0);
  plan->K = expert_TK.size(1);
  const int64_t ranks = ep->size(), local = num_experts / ranks;
  COHORT_CHECK(
      local * ranks == num_experts, "{} experts do not spread over {} ranks", num_experts, ranks);
  if (core::takes_device_branch(expert_TK)) {
    auto sorted = device::sort_pairs(expert_TK, num_experts);
    plan->pair_at = std::move(sorted.pair_at);
    plan->place_of = std::move(sorted.place_of);
    plan->load_E = std::move(sorted.load_E);
  } else {
    sort_on_cpu(expert_TK, num_experts, *plan);
  }
  // The one copy that a layer's pass waits for: how many rows go where.
  const at::Tensor load_on_host = core::to_host(plan->load_E);
  const int64_t* load = load_on_host.const_data_ptr<int64_t>();
  plan->ep = std::move(ep);
  if (ranks == 1) {
    plan->expert_rows.assign(load, load + num_experts);
    return plan;
  }
  // arriving[r * local + e]: rows from rank r for expert e of this rank.
  std::vector<int64_t> arriving(num_experts);
  plan->ep->all_to_all_counts(load, arriving.data(), local);
  plan->expert_rows.assign(local, 0);
  for (int64_t r = 0; r < ranks; ++r) {
    plan->send_rows.push_back(
        std::accumulate(load + r * local, load + (r + 1) * local, int64_t{0}));
    const auto from = arriving.begin() + r * local;
    plan->receive_rows.push_back(std::accumulate(from, from + local, int64_t{0}));
    for (int64_t e = 0; e < local; ++e) plan->expert_rows[e] += from[e];
  }
  // Received rows come rank by rank, each sorted by expert; wanted is expert by expert.
  std::vector<int64_t> next(local, 0);
  std::exclusive_scan(plan->expert_rows.begin(), plan->expert_rows.end(), next.begin(), int64_t{0});
  plan->expert_place =
      at::empty({std::accumulate(plan->receive_rows.begin(), plan->receive_rows.end(), int64_t{0})},
                at::kLong);
  int64_t* place = plan->expert_place.data_ptr<int64_t>();
  for (int64_t i = 0; i < num_experts; ++i)
    for (int64_t n = 0; n < arriving[i]; ++n) *place++ = next[i % local]++;
  plan->expert_place = plan->expert_place.to(expert_TK.device(), /*non_blocking=*/true);
  return plan;
}

at::Tensor dispatch(const at::Tensor& x_TD, const DispatchPlanPtr& plan) {
  return DispatchFunction::apply(x_TD, plan);
}

at::Tensor combine(const at::Tensor& y_RD, const at::Tensor& gate_TK, const DispatchPlanPtr& plan) {
  return CombineFunction::apply(y_RD, gate_TK, plan);
}

}  // namespace cohort::moe
