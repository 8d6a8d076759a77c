#include "core/nn/attention.h"

#include "core/base/error.h"
#include "core/nn/attention_op.h"
#include "tests/catch.h"
#include "tests/core/gradients.h"

using namespace cohort;
using namespace cohort::tests;

namespace {

/// softmax of the whole masked [S, S] of every head, by ATen.
at::Tensor reference(const at::Tensor& q,
                     const at::Tensor& k,
                     const at::Tensor& v,
                     const at::Tensor& document,
                     double scale) {
  const int64_t S = q.size(1), group = q.size(2) / k.size(2);
  const auto scores = at::einsum("bihd,bjhd->bhij", {q, k.repeat_interleave(group, 2)}) * scale;
  auto visible = at::ones({S, S}, at::kBool).tril().unsqueeze(0);
  if (document.defined()) visible = visible & document.unsqueeze(2).eq(document.unsqueeze(1));
  const auto p = at::softmax(scores.masked_fill(visible.logical_not().unsqueeze(1), -INFINITY), -1);
  return at::einsum("bhij,bjhd->bihd", {p, v.repeat_interleave(group, 2)});
}

struct Shape {
  int64_t B, S, H, Hkv, Dqk, Dv;
};

std::vector<at::Tensor> operands(const Shape& s, at::ScalarType dtype = at::kDouble) {
  return {random({s.B, s.S, s.H, s.Dqk}, dtype),
          random({s.B, s.S, s.Hkv, s.Dqk}, dtype),
          random({s.B, s.S, s.Hkv, s.Dv}, dtype)};
}

Function ours(const core::AttentionLayout& layout, double scale) {
  return [=](const auto& in) { return core::causal_attention(in[0], in[1], in[2], layout, scale); };
}

at::Tensor documents(std::vector<std::vector<int64_t>> rows) {
  std::vector<at::Tensor> stacked;
  for (const auto& row : rows) stacked.push_back(at::tensor(row, at::kLong));
  return at::stack(stacked);
}

std::vector<at::Tensor> slice(const std::vector<at::Tensor>& x,
                              int64_t row,
                              int64_t first,
                              int64_t count) {
  std::vector<at::Tensor> part;
  for (const auto& t : x) part.push_back(t.narrow(0, row, 1).narrow(1, first, count));
  return part;
}

}  // namespace

TEST_CASE("Attention and its gradients equal the masked softmax", "[core-attention]") {
  for (const auto& [dtype, bound] :
       {std::pair{at::kDouble, 1e-12}, {at::kFloat, 3e-6}, {at::kBFloat16, 1.5e-2}})
    for (const Shape s : std::vector<Shape>{{1, 1, 1, 1, 1, 1},
                                            {2, 2, 2, 1, 3, 5},
                                            {1, 7, 3, 3, 64, 64},
                                            {2, 8, 4, 2, 20, 16},
                                            {1, 9, 2, 2, 33, 6},
                                            {1, 31, 1, 1, 16, 40},
                                            {3, 33, 6, 2, 24, 24},
                                            {1, 65, 2, 1, 64, 64},
                                            {1, 130, 1, 1, 96, 64}}) {
      INFO(at::toString(dtype) << ": B " << s.B << ", S " << s.S << ", heads " << s.H << "/"
                               << s.Hkv << ", " << s.Dqk << " and " << s.Dv << " channels");
      const auto x = operands(s, dtype);
      const auto d_out = random({s.B, s.S, s.H, s.Dv}, dtype);
      const double scale = 0.7 / std::sqrt(static_cast<double>(s.Dqk));
      const auto f = ours(core::attention_layout(s.B, s.S, {}), scale);
      const Function g = [&](const auto& in) { return reference(in[0], in[1], in[2], {}, scale); };
      const auto in = leaves(x, dtype), in64 = leaves(x);
      const auto out = f(in);
      CHECK(out.scalar_type() == dtype);
      CHECK(error_of(out, g(in64)) < bound);
      const auto found = gradients_of(f, in, d_out),
                 expected = gradients_of(g, in64, d_out.to(at::kDouble));
      // The gradients of q and k are all zero for a run of one token: compare with the size of d v.
      const double size = expected[2].abs().max().item<double>();
      for (int i : {0, 1, 2})
        CHECK((found[i].to(at::kDouble) - expected[i]).abs().max().item<double>() <
              bound * std::max(size, 1.0));
    }
}

TEST_CASE("Attention's gradients equal finite differences", "[core-attention]") {
  const auto document =
      documents({{0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 2}, {0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}});
  check_finite_differences(
      ours(core::attention_layout(2, 11, document), 0.4), operands({2, 11, 4, 2, 6, 5}), 1e-7);
}

TEST_CASE("A document attends to itself alone, with the bits it has alone", "[core-attention]") {
  const auto document = documents({{0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 2, 2, 2, 2},
                                   {0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 3, 3}});
  const auto layout = core::attention_layout(2, 15, document);
  REQUIRE(layout.runs.size() == 6);
  CHECK_FALSE(layout.one_run_a_row);
  for (auto dtype : {at::kDouble, at::kFloat, at::kBFloat16}) {
    const auto x = operands({2, 15, 2, 1, 8, 8}, dtype), in = leaves(x, dtype);
    const auto d_out = random({2, 15, 2, 8}, dtype);
    const auto out = ours(layout, 0.3)(in);
    const auto gradients = gradients_of(ours(layout, 0.3), in, d_out);
    if (dtype == at::kDouble)
      CHECK(error_of(out, reference(x[0], x[1], x[2], document, 0.3)) < 1e-12);
    for (const auto& run : layout.runs) {
      const auto alone = leaves(slice(x, run.row, run.first, run.count), dtype);
      const auto f = ours(core::attention_layout(1, run.count, {}), 0.3);
      CHECK(identical(slice({out}, run.row, run.first, run.count)[0], f(alone)));
      const auto d = gradients_of(f, alone, slice({d_out}, run.row, run.first, run.count)[0]);
      const auto expected = slice(gradients, run.row, run.first, run.count);
      for (int i : {0, 1, 2}) CHECK(identical(d[i], expected[i]));
    }
  }
}

TEST_CASE("Attention's bits depend neither on threads nor on later tokens", "[core-attention]") {
  for (auto dtype : {at::kFloat, at::kBFloat16}) {
    const auto x = operands({3, 70, 4, 2, 24, 16}, dtype);
    const auto d_out = random({3, 70, 4, 16}, dtype);
    const auto f = ours(core::attention_layout(3, 70, {}), 0.2);
    std::vector<at::Tensor> first;
    for (int threads : {1, 2, 5}) {
      const Threads limit(threads);
      const auto in = leaves(x, dtype);
      auto now = gradients_of(f, in, d_out);
      now.push_back(f(in).detach());
      if (first.empty()) first = now;
      for (size_t i = 0; i < now.size(); ++i) CHECK(identical(now[i], first[i]));
    }
    for (int64_t length : {1, 6, 37})
      CHECK(identical(ours(core::attention_layout(1, length, {}), 0.2)(slice(x, 1, 0, length)),
                      slice({first[3]}, 1, 0, length)[0]));
  }
}

TEST_CASE("Scores of thousands neither overflow nor turn to NaN", "[core-attention]") {
  auto x = operands({1, 40, 2, 2, 8, 8});
  x[0] = x[0] * 1e3;
  const auto in = leaves(x, at::kFloat), in64 = leaves(x);
  const auto out = ours(core::attention_layout(1, 40, {}), 1.0)(in);
  CHECK(error_of(out, reference(in64[0], in64[1], in64[2], {}, 1.0)) < 1e-3);
  for (const auto& g :
       gradients_of(ours(core::attention_layout(1, 40, {}), 1.0), in, at::ones_like(out)))
    CHECK(at::isfinite(g).all().item<bool>());
}

TEST_CASE("Strided, packed and shared operands give what separate ones give", "[core-attention]") {
  const int64_t B = 2, S = 19, H = 3, nope = 5, R = 4, Dv = 7;
  const auto table = core::rope_table({}, R, S, at::kDouble);
  const auto layout = core::attention_layout(B, S, {});
  // q and k_shared are slices of one tensor, keys stand beside values.
  const Function fused = [&](const auto& in) {
    const auto parts = at::split_with_sizes(in[0], {H * (nope + R), 2, R}, -1);
    return core::attention_op({parts[0].view({B, S, H, nope + R}), in[1], parts[2], {}},
                              {table.cos, table.sin, true},
                              layout,
                              0.3);
  };
  const Function separate = [&](const auto& in) {
    const auto parts = at::split_with_sizes(in[0], {H * (nope + R), 2, R}, -1);
    const auto q = at::split_with_sizes(parts[0].view({B, S, H, nope + R}), {nope, R}, -1);
    const auto kv = at::split_with_sizes(in[1], {nope, Dv}, -1);
    const auto k_rope = core::apply_rope(parts[2].unsqueeze(2), table, true).expand({B, S, H, R});
    return reference(at::cat({q[0], core::apply_rope(q[1], table, true)}, -1),
                     at::cat({kv[0], k_rope}, -1),
                     kv[1],
                     {},
                     0.3);
  };
  const std::vector<at::Tensor> x{random({B, S, H * (nope + R) + 2 + R}),
                                  random({B, S, H, nope + Dv})};
  const auto a = leaves(x), b = leaves(x);
  CHECK(error_of(fused(a), separate(b)) < 1e-12);
  const auto d_out = random({B, S, H, Dv});
  const auto g = gradients_of(fused, a, d_out), expected = gradients_of(separate, b, d_out);
  for (int i : {0, 1}) CHECK(error_of(g[i], expected[i]) < 1e-12);
  check_finite_differences(fused, x, 1e-7);
  // A gradient that arrives transposed.
  CHECK(identical(gradients_of(fused, a, d_out.transpose(1, 2).contiguous().transpose(1, 2))[0],
                  g[0]));
}

TEST_CASE("Layouts cover every position and refuse what does not fit", "[core-attention]") {
  const auto layout = core::attention_layout(2, 3, documents({{4, 4, 4}, {0, 1, 1}}));
  REQUIRE(layout.runs.size() == 3);
  CHECK(layout.runs[2].row == 1);
  CHECK(layout.runs[2].first == 1);
  CHECK(layout.runs[2].count == 2);
  CHECK(core::attention_layout(2, 3, documents({{1, 1, 1}, {1, 1, 1}})).one_run_a_row);
  CHECK_THROWS_AS(core::attention_layout(2, 4, documents({{4, 4, 4}, {0, 1, 1}})), Error);
  const auto x = operands({1, 4, 3, 2, 4, 4});
  CHECK_THROWS_AS(core::causal_attention(x[0], x[1], x[2], core::attention_layout(1, 4, {}), 1),
                  Error);
  const auto y = operands({1, 4, 2, 2, 4, 4});
  CHECK_THROWS_AS(core::causal_attention(y[0], y[1], y[2], core::attention_layout(1, 5, {}), 1),
                  Error);
  CHECK_THROWS_AS(
      core::causal_attention(y[0], y[1], y[2].to(at::kFloat), core::attention_layout(1, 4, {}), 1),
      Error);
  CHECK_THROWS_AS(core::causal_attention(
                      y[0], y[1].narrow(-1, 0, 3), y[2], core::attention_layout(1, 4, {}), 1),
                  Error);
}
