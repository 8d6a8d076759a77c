#include "moe/dispatch.h"

#include <torch/csrc/autograd/custom_function.h>

#include <numeric>

#include "core/base/error.h"
#include "kernels/cpu/dispatch.h"

namespace cohort::moe {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// Calls body with null pointers of the row's and the gate's C++ types.
template <class Body>
void with_row_type(const at::Tensor& rows, const Body& body) {
  switch (rows.scalar_type()) {
    case at::kFloat:
      return body(static_cast<float*>(nullptr), static_cast<float*>(nullptr));
    case at::kDouble:
      return body(static_cast<double*>(nullptr), static_cast<double*>(nullptr));
    case at::kBFloat16:
      return body(static_cast<kernels::Bf16*>(nullptr), static_cast<float*>(nullptr));
    default:
      throw Error(fmt::format("dispatch takes fp32, fp64 or bf16 rows, not {}",
                              c10::toString(rows.scalar_type())));
  }
}

template <class T>
const T* in(const at::Tensor& t) {
  return static_cast<const T*>(t.const_data_ptr());
}
template <class T>
T* out(at::Tensor& t) {
  return static_cast<T*>(t.mutable_data_ptr());
}

at::Tensor gather(const at::Tensor& rows, const at::Tensor& index, int64_t divisor) {
  at::Tensor result = at::empty({index.numel(), rows.size(1)}, rows.options());
  with_row_type(rows, [&]<class Row, class Gate>(Row*, Gate*) {
    kernels::gather_rows(in<Row>(rows),
                         in<int64_t>(index),
                         divisor,
                         index.numel(),
                         rows.size(1),
                         out<Row>(result));
  });
  return result;
}

at::Tensor scatter(const at::Tensor& rows, const at::Tensor& index) {
  at::Tensor result = at::empty_like(rows);
  with_row_type(rows, [&]<class Row, class Gate>(Row*, Gate*) {
    kernels::scatter_rows(
        in<Row>(rows), in<int64_t>(index), rows.size(0), rows.size(1), out<Row>(result));
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
  at::Tensor result = at::empty({plan.T, pairs.size(1)}, pairs.options());
  with_row_type(pairs, [&]<class Row, class Gate>(Row*, Gate*) {
    kernels::combine_rows(in<Row>(pairs),
                          in<int64_t>(plan.place_of),
                          gate.defined() ? in<Gate>(gate) : nullptr,
                          plan.T,
                          plan.K,
                          pairs.size(1),
                          out<Row>(result));
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
    at::Tensor d_pairs = at::empty_like(pairs), d_gate = at::empty_like(gate);
    with_row_type(pairs, [&]<class Row, class Gate>(Row*, Gate*) {
      kernels::combine_rows_backward(in<Row>(d_out),
                                     in<Row>(pairs),
                                     in<int64_t>(plan.place_of),
                                     in<Gate>(gate),
                                     plan.T,
                                     plan.K,
                                     pairs.size(1),
                                     out<Row>(d_pairs),
                                     out<Gate>(d_gate));
    });
    return {to_experts(d_pairs, plan), d_gate, at::Tensor()};
  }
};

}  // namespace

DispatchPlanPtr plan_dispatch(const at::Tensor& expert_TK,
                              int64_t num_experts,
                              std::shared_ptr<distributed::Communicator> ep) {
  auto plan = c10::make_intrusive<DispatchPlan>();
  plan->T = expert_TK.size(0);
  plan->K = expert_TK.size(1);
  const int64_t num_pairs = plan->T * plan->K, ranks = ep->size(), local = num_experts / ranks;
  COHORT_CHECK(local * ranks == num_experts, "{} experts do not spread over {} ranks", num_experts, ranks);
  plan->pair_at = at::empty({num_pairs}, at::kLong);
  plan->place_of = at::empty({num_pairs}, at::kLong);
  plan->load_E = at::empty({num_experts}, at::kLong);
  const int64_t* load = plan->load_E.const_data_ptr<int64_t>();
  kernels::sort_pairs(expert_TK.contiguous().const_data_ptr<int64_t>(),
                      num_pairs,
                      num_experts,
                      plan->load_E.data_ptr<int64_t>(),
                      plan->pair_at.data_ptr<int64_t>(),
                      plan->place_of.data_ptr<int64_t>());
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
    plan->send_rows.push_back(std::accumulate(load + r * local, load + (r + 1) * local, int64_t{0}));
    const auto from = arriving.begin() + r * local;
    plan->receive_rows.push_back(std::accumulate(from, from + local, int64_t{0}));
    for (int64_t e = 0; e < local; ++e) plan->expert_rows[e] += from[e];
  }
  // Received rows come rank by rank, each sorted by expert; wanted is expert by expert.
  std::vector<int64_t> next(local, 0);
  std::exclusive_scan(plan->expert_rows.begin(), plan->expert_rows.end(), next.begin(), int64_t{0});
  plan->expert_place = at::empty(
      {std::accumulate(plan->receive_rows.begin(), plan->receive_rows.end(), int64_t{0})}, at::kLong);
  int64_t* place = plan->expert_place.data_ptr<int64_t>();
  for (int64_t i = 0; i < num_experts; ++i)
    for (int64_t n = 0; n < arriving[i]; ++n) *place++ = next[i % local]++;
  return plan;
}

at::Tensor dispatch(const at::Tensor& x_TD, const DispatchPlanPtr& plan) {
  return DispatchFunction::apply(x_TD, plan);
}

at::Tensor combine(const at::Tensor& y_RD, const at::Tensor& gate_TK, const DispatchPlanPtr& plan) {
  return CombineFunction::apply(y_RD, gate_TK, plan);
}

}  // namespace cohort::moe
