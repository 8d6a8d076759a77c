#include "core/nn/linear.h"

#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cstdlib>
#include <numeric>
#include <string>
#include <unordered_map>

#include "core/base/device_branch.h"
#include "core/base/error.h"
#include "core/nn/quantized.h"
#include "kernels/cpu/gemm.h"

namespace cohort::core {

bool own_fp32_gemm() {
  static const bool own = [] {
    const char* text = std::getenv("COHORT_GEMM");
    const std::string choice = text ? text : "";
    COHORT_CHECK_INPUT(choice.empty() || choice == "own" || choice == "torch",
                       "environment variable COHORT_GEMM is '{}': should be own, torch or unset",
                       choice);
    return choice.empty() ? kernels::gemm_preferred() : choice == "own";
  }();
  return own;
}

namespace {

using Counts = std::vector<int64_t>;
using kernels::GemmForm;
using torch::autograd::AutogradContext;
using torch::autograd::Variable;
using torch::autograd::variable_list;

/// t [..., columns] as a matrix whose rows are contiguous and do not overlap.
at::Tensor as_rows(const at::Tensor& t, int64_t columns) {
  const at::Tensor m = t.dim() == 2 ? t : t.reshape({t.numel() / columns, columns});
  return m.stride(1) == 1 && m.stride(0) >= columns ? m : m.contiguous();
}

/// An operand of a grouped product: rows [R, C] that the counts split, or one matrix a group
/// [G, R, C].
struct Operand {
  const at::Tensor& t;
  bool stacked() const { return t.dim() == 3; }
  int64_t rows(int64_t count) const { return stacked() ? t.size(1) : count; }
  int64_t columns() const { return t.size(-1); }
  int64_t leading() const { return std::max(t.stride(-2), t.size(-1)); }
  at::Tensor of_group(int64_t group, int64_t row, int64_t count) const {
    return stacked() ? t.select(0, group) : t.narrow(0, row, count);
  }
  float* floats(int64_t group, int64_t row) const {
    return static_cast<float*>(t.data_ptr()) + (stacked() ? group * t.stride(0) : row * leading());
  }
};

// oneDNN, which multiplies bf16, compiles code for every new shape, and the rows of an expert are
// never the same twice. So its rows come in multiples of this, the last ones filled up with zeros.
constexpr int64_t kRowBlock = 64;

/// t [rows, columns] with zeros below, up to a multiple of kRowBlock; t itself when it is one.
at::Tensor filled_up(const at::Tensor& t) {
  const int64_t rows = (t.size(0) + kRowBlock - 1) / kRowBlock * kRowBlock;
  if (rows == t.size(0)) return t;
  const at::Tensor filled = at::empty({rows, t.size(1)}, t.options());
  filled.narrow(0, 0, t.size(0)).copy_(t);
  filled.narrow(0, t.size(0), rows - t.size(0)).zero_();
  return filled;
}

/// Weights in the GEMM's layout, while some SteadyWeights lives.
struct PackedWeights {
  int64_t scopes = 0;
  std::unordered_map<const void*, std::vector<at::Tensor>> of_weight;  ///< One a group.

  /// Packed form of a stack [G, O, I].
  const std::vector<at::Tensor>& packed(const Operand& weight) {
    auto& groups = of_weight[weight.t.data_ptr()];
    const int64_t outputs = weight.t.size(1), inputs = weight.t.size(2);
    if (groups.empty())
      for (int64_t g = 0; g < weight.t.size(0); ++g) {
        groups.push_back(
            at::empty({kernels::gemm_packed_size(outputs, inputs)}, weight.t.options()));
        kernels::gemm_pack(weight.floats(g, 0),
                           weight.leading(),
                           outputs,
                           inputs,
                           groups.back().data_ptr<float>());
      }
    return groups;
  }
};

PackedWeights& packed_weights() {
  thread_local PackedWeights weights;
  return weights;
}

/// One group's product by LibTorch; `steady`: in shapes that come again.
void torch_product(
    GemmForm form, const at::Tensor& a, const at::Tensor& b, at::Tensor out, bool steady) {
  const at::Tensor right = form == GemmForm::kNT ? b.t() : b;
  if (!steady) {
    at::mm_out(out, form == GemmForm::kTN ? a.t() : a, right);
    return;
  }
  if (form == GemmForm::kTN) {
    at::mm_out(out, filled_up(a).t(), filled_up(b));
    return;
  }
  const int64_t rest = a.size(0) % kRowBlock, whole = a.size(0) - rest;
  if (whole > 0) {
    at::Tensor top = out.narrow(0, 0, whole);
    at::mm_out(top, a.narrow(0, 0, whole), right);
  }
  if (rest > 0)
    out.narrow(0, whole, rest)
        .copy_(at::mm(filled_up(a.narrow(0, whole, rest)), right).narrow(0, 0, rest));
}

/// bf16 groups on a device in one launch (at::_grouped_mm); false, and nothing done, where it does
/// not apply: one group, another dtype, rows that are no multiple of 16 bytes.
bool grouped_on_device(GemmForm form, Operand a, Operand b, Operand c, const Counts& counts) {
  constexpr int64_t kAligned = 8;  // 16 bytes of bf16
  if (!takes_device_branch(c.t) || counts.size() < 2 || c.t.scalar_type() != at::kBFloat16)
    return false;
  if (a.columns() % kAligned || b.columns() % kAligned || c.columns() % kAligned) return false;
  std::vector<int32_t> ends;
  int64_t rows = 0;
  for (const int64_t count : counts) ends.push_back(static_cast<int32_t>(rows += count));
  if (rows == 0) return false;
  const auto offsets = at::tensor(ends, at::kInt).to(c.t.device(), /*non_blocking=*/true);
  const at::Tensor left = form == GemmForm::kTN ? a.t.t() : a.t;
  const at::Tensor right = form == GemmForm::kNT ? b.t.transpose(-2, -1) : b.t;
  at::Tensor out = c.t;
  out.copy_(at::_grouped_mm(left, right, offsets));
  // What a sum over no rows is, is not written down there.
  for (size_t i = 0; c.stacked() && i < counts.size(); ++i)
    if (counts[i] == 0) out.select(0, static_cast<int64_t>(i)).zero_();
  return true;
}

/// c = a b, a b^T or a^T b (`form`) group by group; a group without rows leaves zeros.
/// `steady_weight`: b of a b^T may be kept packed.
void grouped_product(GemmForm form,
                     Operand a,
                     Operand b,
                     Operand c,
                     const Counts& counts,
                     bool steady_weight = false) {
  if (grouped_on_device(form, a, b, c, counts)) return;
  const bool on_device = takes_device_branch(c.t);
  const bool own = !on_device && c.t.scalar_type() == at::kFloat && own_fp32_gemm();
  const std::vector<at::Tensor>* packed =
      own && steady_weight ? &packed_weights().packed(b) : nullptr;
  std::vector<kernels::GemmProduct> products;
  int64_t row = 0;
  for (size_t i = 0; i < counts.size(); ++i) {
    const int64_t group = static_cast<int64_t>(i), count = counts[i];
    if (own) {
      products.push_back({form,
                          c.rows(count),
                          c.columns(),
                          form == GemmForm::kTN ? a.rows(count) : a.columns(),
                          a.floats(group, row),
                          a.leading(),
                          b.floats(group, row),
                          b.leading(),
                          c.floats(group, row),
                          c.leading(),
                          false,
                          packed ? (*packed)[i].const_data_ptr<float>() : nullptr});
    } else if (count > 0 || c.stacked()) {
      const at::Tensor out = c.of_group(group, row, count);
      if (count == 0)
        out.zero_();
      else
        torch_product(form,
                      a.of_group(group, row, count),
                      b.of_group(group, row, count),
                      out,
                      !on_device && counts.size() > 1 && out.scalar_type() == at::kBFloat16);
    }
    row += count;
  }
  kernels::gemm_many(products.data(), static_cast<int64_t>(products.size()));
}

/// weight [O, I] as the stack of one group.
at::Tensor stack_of(const at::Tensor& weight) {
  return (weight.dim() == 2 ? weight.unsqueeze(0) : weight).contiguous();
}

at::Tensor multiply(const at::Tensor& x, const at::Tensor& weight, const Counts& counts) {
  const at::Tensor stack = stack_of(weight), rows = as_rows(x, weight.size(-1));
  auto shape = x.sizes().vec();
  shape.back() = stack.size(1);
  const at::Tensor y = at::empty(shape, x.options());
  const at::Tensor y_rows = y.view({rows.size(0), stack.size(1)});
  // Parameters only: a passing tensor's memory may be another's a moment later.
  const bool steady =
      packed_weights().scopes > 0 && !at::GradMode::is_enabled() && weight.requires_grad();
  grouped_product(GemmForm::kNT, {rows}, {stack}, {y_rows}, counts, steady);
  return y;
}

/// y = x W^T, so d_x = d_y W and d_W = d_y^T x.
struct LinearFunction : torch::autograd::Function<LinearFunction> {
  static Variable forward(AutogradContext* context, Variable x, Variable weight, Counts counts) {
    context->save_for_backward({x, weight});
    context->saved_data["counts"] = counts;
    return multiply(x, weight, counts);
  }

  static variable_list backward(AutogradContext* context, variable_list d_outputs) {
    COHORT_CHECK(!at::GradMode::is_enabled(),
                 "linear has no second derivative: call backward without create_graph");
    const auto saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1];
    const Counts counts = context->saved_data["counts"].toIntVector();
    const int64_t inputs = weight.size(-1), outputs = weight.size(-2);
    const at::Tensor d_y = as_rows(d_outputs[0], outputs);
    at::Tensor d_x, d_weight;
    if (context->needs_input_grad(0)) {
      d_x = at::empty(x.sizes(), d_y.options());
      const at::Tensor stack = stack_of(weight), d_rows = d_x.view({d_y.size(0), inputs});
      grouped_product(GemmForm::kNN, {d_y}, {stack}, {d_rows}, counts);
    }
    if (context->needs_input_grad(1)) {
      d_weight = at::empty(weight.sizes(), d_y.options());
      const at::Tensor stack = stack_of(d_weight), rows = as_rows(x, inputs);
      grouped_product(GemmForm::kTN, {d_y}, {rows}, {stack}, counts);
    }
    return {d_x, d_weight, Variable()};
  }
};

at::Tensor apply(const at::Tensor& x, const at::Tensor& weight, const Counts& counts) {
  COHORT_CHECK(x.dim() >= 1 && weight.size(-1) > 0 && x.size(-1) == weight.size(-1),
               "linear: x of shape {} does not fit a weight of shape {}",
               fmt::join(x.sizes(), "x"),
               fmt::join(weight.sizes(), "x"));
  COHORT_CHECK(x.scalar_type() == weight.scalar_type(),
               "linear: x is {} and the weight {}",
               c10::toString(x.scalar_type()),
               c10::toString(weight.scalar_type()));
  const bool wants_graph =
      at::GradMode::is_enabled() && (x.requires_grad() || weight.requires_grad());
  if (is_quantized(weight)) {
    COHORT_CHECK(!wants_graph, "linear: a quantised weight has no gradient to give");
    return quantized_linear(x, weight, counts);
  }
  if (wants_graph) return LinearFunction::apply(x, weight, counts);
  return multiply(x, weight, counts);
}

}  // namespace

SteadyWeights::SteadyWeights() { ++packed_weights().scopes; }

SteadyWeights::~SteadyWeights() {
  if (--packed_weights().scopes == 0) packed_weights().of_weight.clear();
}

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight) {
  COHORT_CHECK(weight.dim() == 2 && weight.size(1) > 0,
               "linear: the weight has shape {}, not [outputs, inputs]",
               fmt::join(weight.sizes(), "x"));
  return apply(x, weight, {x.numel() / weight.size(1)});
}

at::Tensor grouped_linear(const at::Tensor& x, const at::Tensor& weight, const Counts& counts) {
  COHORT_CHECK(x.dim() == 2 && weight.dim() == 3,
               "grouped_linear: x has {} dimensions and the weight {}, not 2 and 3",
               x.dim(),
               weight.dim());
  const bool negative = std::any_of(counts.begin(), counts.end(), [](int64_t n) { return n < 0; });
  const int64_t rows = std::accumulate(counts.begin(), counts.end(), int64_t{0});
  COHORT_CHECK(
      static_cast<int64_t>(counts.size()) == weight.size(0) && rows == x.size(0) && !negative,
      "grouped_linear: {} counts of {} rows{} for {} groups and {} rows",
      counts.size(),
      rows,
      negative ? ", some negative," : "",
      weight.size(0),
      x.size(0));
  return apply(x, weight, counts);
}

}  // namespace cohort::core
