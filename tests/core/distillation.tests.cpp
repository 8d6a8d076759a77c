// The distillation loss, against plain ATen over the whole [T, V].
#include "core/nn/distillation.h"

#include "core/base/error.h"
#include "tests/catch.h"
#include "tests/core/gradients.h"

using namespace cohort;
using namespace cohort::tests;

namespace {

/// What a teacher of random logits [T, V] tells of its k likeliest.
struct Teacher {
  at::Tensor tokens, log_probs;

  Teacher(int64_t rows, int64_t classes, int64_t k) {
    const auto log_p = at::log_softmax(2 * random({rows, classes}), -1);
    const auto [values, ids] = log_p.topk(k, -1);
    tokens = ids.to(at::kInt);
    log_probs = values.contiguous();
  }
};

at::Tensor targets(int64_t rows, int64_t classes) {
  return at::randint(classes, {rows}, at::TensorOptions().dtype(at::kLong));
}

Function ours(const at::Tensor& target, const Teacher& teacher, core::DistillationRule rule) {
  return [=](const auto& in) {
    return core::linear_distillation_sum(
               in[0], in[1], target, teacher.tokens, teacher.log_probs, rule)
        .loss;
  };
}

/// The buckets' logarithms: k tokens and, unless these are all, the rest.
at::Tensor buckets(const at::Tensor& named, const at::Tensor& rest) {
  return at::cat({named, rest.log().unsqueeze(1)}, 1);
}

Function reference(const at::Tensor& target, const Teacher& teacher, core::DistillationRule rule) {
  return [=](const auto& in) {
    const auto log_q = at::log_softmax(at::mm(in[0], in[1].t()), -1);
    const auto nats = -log_q.gather(1, target.unsqueeze(1)).sum();
    const auto ids = teacher.tokens.to(at::kLong);
    at::Tensor p = teacher.log_probs, q = log_q.gather(1, ids);
    if (ids.size(1) < log_q.size(1)) {
      p = buckets(p, (1 - p.exp().sum(1)).clamp_min(kernels::kLeastRest));
      q = buckets(q, log_q.exp().scatter(1, ids, 0).sum(1));
    }
    p = at::log_softmax(p / rule.temperature, -1);
    q = at::log_softmax(q / rule.temperature, -1);
    const auto kl = rule.reverse ? (q.exp() * (q - p)).sum() : (p.exp() * (p - q)).sum();
    return (1 - rule.weight) * nats + rule.weight * rule.temperature * rule.temperature * kl;
  };
}

const std::vector<core::DistillationRule> kRules{
    {0.5, false, 1.0}, {0.5, true, 1.0}, {1.0, false, 2.5}, {0.3, true, 0.7}, {0.0, false, 1.0}};

}  // namespace

TEST_CASE("The distillation loss equals the equation over the whole", "[core-distillation]") {
  for (const auto& [dtype, bound] :
       {std::pair{at::kDouble, 1e-10}, {at::kFloat, 2e-5}, {at::kBFloat16, 3e-2}})
    for (const auto& [rows, classes, k] : {std::tuple<int64_t, int64_t, int64_t>{1, 2, 1},
                                           {7, 29, 5},
                                           {7, 29, 29},
                                           {300, 4096, 8},
                                           {5, 33, 32}})
      for (const auto& rule : kRules) {
        INFO(at::toString(dtype) << ", " << rows << " x " << classes << ", top " << k << ", weight "
                                 << rule.weight << ", reverse " << rule.reverse);
        const auto x = random({rows, 8}, dtype), head = random({classes, 8}, dtype) * 0.5;
        const auto target = targets(rows, classes);
        const Teacher teacher(rows, classes, k);
        const auto in = leaves({x, head}, dtype), in64 = leaves({x, head});
        CHECK(error_of(ours(target, teacher, rule)(in), reference(target, teacher, rule)(in64)) <
              bound);
        const auto g = gradients_of(ours(target, teacher, rule), in);
        const auto g64 = gradients_of(reference(target, teacher, rule), in64);
        CHECK(g[0].scalar_type() == dtype);
        for (int i : {0, 1}) CHECK(error_of(g[i], g64[i]) < bound);
      }
}

TEST_CASE("Its gradients equal finite differences", "[core-distillation]") {
  const auto target = targets(11, 17);
  const Teacher teacher(11, 17, 4);
  for (const auto& rule : kRules)
    check_finite_differences(ours(target, teacher, rule), {random({11, 5}), random({17, 5})}, 1e-7);
}

TEST_CASE("A student that is its teacher has no divergence and no pull", "[core-distillation]") {
  const auto in = leaves({random({9, 6}), random({23, 6})});
  const auto log_p = at::log_softmax(at::mm(in[0], in[1].t()).detach(), -1);
  const auto [values, ids] = log_p.topk(3, -1);
  for (const bool reverse : {false, true})
    for (const double temperature : {1.0, 3.0}) {
      const core::DistillationRule rule{1.0, reverse, temperature};
      const auto sums = core::linear_distillation_sum(
          in[0], in[1], targets(9, 23), ids.to(at::kInt), values.contiguous(), rule);
      CHECK(std::abs(sums.divergence.item<double>()) < 1e-12);
      const auto g = gradients_of([&](const auto&) { return sums.loss; }, in);
      CHECK(g[0].abs().max().item<double>() < 1e-12);
    }
}

TEST_CASE("Rows may know fewer likeliest tokens than others", "[core-distillation]") {
  const auto in = leaves({random({2, 4}), random({12, 4})});
  const auto target = targets(2, 12);
  Teacher teacher(2, 12, 5);
  teacher.tokens[1].slice(0, 2) = -1;
  const core::DistillationRule rule{0.6, false, 1.5};
  const auto both =
      core::linear_distillation_sum(in[0], in[1], target, teacher.tokens, teacher.log_probs, rule);
  at::Tensor sum = at::zeros({}, at::kDouble);
  for (const auto& [row, k] : {std::pair<int64_t, int64_t>{0, 5}, {1, 2}})
    sum += core::linear_distillation_sum(in[0].narrow(0, row, 1),
                                         in[1],
                                         target.narrow(0, row, 1),
                                         teacher.tokens.narrow(0, row, 1).narrow(1, 0, k),
                                         teacher.log_probs.narrow(0, row, 1).narrow(1, 0, k),
                                         rule)
               .loss;
  CHECK(both.loss.item<double>() == Approx(sum.item<double>()).epsilon(1e-13));
}

TEST_CASE("Confident students and teachers stay finite", "[core-distillation]") {
  for (const auto dtype : {at::kFloat, at::kDouble})
    for (const bool reverse : {false, true}) {
      // The student is sure of class 3, the teacher of class 1 and then of class 3.
      const auto in = leaves(
          {at::full({2, 1}, 1.0, at::kDouble), at::tensor({0., 0., 0., 2000., 0.}).view({5, 1})},
          dtype);
      const auto tokens = at::tensor({1, 3}, at::kInt).view({2, 1});
      const auto log_probs = at::zeros({2, 1}, at::kDouble);
      const core::DistillationRule rule{1.0, reverse, 4.0};
      const auto sums = core::linear_distillation_sum(
          in[0], in[1], at::tensor({0, 0}, at::kLong), tokens, log_probs, rule);
      CHECK(std::isfinite(sums.divergence.item<double>()));
      for (const auto& g : gradients_of([&](const auto&) { return sums.loss; }, in))
        CHECK(g.isfinite().all().item<bool>());
    }
}

TEST_CASE("Operands that do not fit are told with their sizes", "[core-distillation]") {
  const auto x = random({2, 3}), head = random({7, 3});
  const auto target = targets(2, 7);
  const auto log_probs = at::zeros({2, 1}, at::kDouble);
  const auto call = [&](const at::Tensor& tokens, core::DistillationRule rule) {
    return core::linear_distillation_sum(x, head, target, tokens, log_probs, rule);
  };
  CHECK_NOTHROW(call(at::tensor({1, 2}, at::kInt).view({2, 1}), {}));
  CHECK_THROWS_AS(call(at::tensor({1, 7}, at::kInt).view({2, 1}), {}), Error);
  CHECK_THROWS_AS(call(at::tensor({1, -1}, at::kInt).view({2, 1}), {}), Error);
  CHECK_THROWS_AS(call(at::tensor({1, 2}, at::kInt), {}), Error);
  CHECK_THROWS_AS(call(at::tensor({1, 2}, at::kInt).view({2, 1}), {0.5, false, 0.0}), Error);
  CHECK(core::linear_distillation_sum(x.narrow(0, 0, 0),
                                      head,
                                      target.narrow(0, 0, 0),
                                      at::empty({0, 1}, at::kInt),
                                      log_probs.narrow(0, 0, 0),
                                      {})
            .loss.item<double>() == 0);
}
