#include "core/nn/token_log_probs.h"

#include "core/base/error.h"
#include "core/nn/linear.h"
#include "kernels/cpu/token_log_probs.h"
#include "tests/catch.h"
#include "tests/core/gradients.h"

using namespace cohort;
using namespace cohort::tests;

namespace {

at::Tensor targets(int64_t rows, int64_t classes) {
  return at::randint(0, classes, {rows}, at::TensorOptions().dtype(at::kLong));
}

Function ours(const at::Tensor& target, double temperature) {
  return [target, temperature](const auto& in) {
    return core::token_log_probs(in[0], in[1], target, temperature).log_prob;
  };
}

at::Tensor log_softmax(const at::Tensor& x, const at::Tensor& head, double temperature) {
  return at::log_softmax(at::mm(x, head.t()) / temperature, -1);
}

Function reference(const at::Tensor& target, double temperature) {
  return [target, temperature](const auto& in) {
    return log_softmax(in[0], in[1], temperature).gather(1, target.unsqueeze(1)).squeeze(1);
  };
}

at::Tensor entropy_of(const at::Tensor& x, const at::Tensor& head, double temperature) {
  const auto log_p = log_softmax(x, head, temperature);
  return -(log_p.exp() * log_p).sum(-1);
}

struct KernelRows {
  at::Tensor logits, log_prob, entropy;  ///< The logits after the kernel.
};

template <class T>
KernelRows run_kernel(const at::Tensor& logits,
                      const at::Tensor& target,
                      double temperature,
                      const double* coefficient = nullptr) {
  KernelRows out{logits.clone(),
                 at::empty({logits.size(0)}, at::kDouble),
                 at::empty({logits.size(0)}, at::kDouble)};
  kernels::token_log_probs<T>(static_cast<T*>(out.logits.data_ptr()),
                              target.const_data_ptr<int64_t>(),
                              logits.size(0),
                              logits.size(1),
                              1 / temperature,
                              coefficient,
                              out.log_prob.template data_ptr<double>(),
                              out.entropy.template data_ptr<double>());
  return out;
}

}  // namespace

TEST_CASE("Chunked log-probabilities and entropies equal log-softmax over the whole",
          "[core-token_log_probs]") {
  // 4096 classes are taken 256 rows at a time: 600 rows are two chunks and a tail, 256 just one.
  // A bf16 logit between 8 and 16 is up to 0.03 off, which at 0.7 moves its probability by 4.5 %.
  at::manual_seed(1);
  for (const auto& [dtype, bound] :
       {std::pair{at::kDouble, 1e-12}, {at::kFloat, 1e-5}, {at::kBFloat16, 5e-2}})
    for (const auto& [rows, classes] :
         {std::pair<int64_t, int64_t>{1, 1}, {1, 5}, {7, 29}, {600, 4096}, {256, 4097}})
      for (const double temperature : {1.0, 0.7}) {
        INFO(at::toString(dtype) << ", " << rows << " rows of " << classes << " classes at "
                                 << temperature);
        const auto x = random({rows, 8}, dtype), head = random({classes, 8}, dtype);
        const auto target = targets(rows, classes), d_out = random({rows});
        const auto in = leaves({x, head}, dtype), in64 = leaves({x, head});
        const auto out = core::token_log_probs(in[0], in[1], target, temperature);
        const auto type = dtype == at::kDouble ? at::kDouble : at::kFloat;
        CHECK(out.log_prob.scalar_type() == type);
        CHECK(out.entropy.scalar_type() == type);
        CHECK(out.log_prob.requires_grad());
        CHECK_FALSE(out.entropy.requires_grad());
        CHECK(error_of(out.log_prob, reference(target, temperature)(in64)) < bound);
        CHECK(error_of(out.entropy, entropy_of(in64[0], in64[1], temperature)) < bound);
        const auto g = gradients_of(ours(target, temperature), in, d_out),
                   g64 = gradients_of(
                       reference(target, temperature), in64, d_out.to(type).to(at::kDouble));
        for (int i : {0, 1}) {
          CHECK(g[i].scalar_type() == dtype);
          CHECK(error_of(g[i], g64[i]) < bound);
        }
      }
}

TEST_CASE("Gradients of log-probabilities equal finite differences", "[core-token_log_probs]") {
  for (const double temperature : {1.0, 0.7}) {
    const auto target = targets(11, 17);
    check_finite_differences(ours(target, temperature), {random({11, 5}), random({17, 5})}, 1e-7);
  }
}

TEST_CASE("A row of logits gives the same bits whatever rows and threads are with it",
          "[core-token_log_probs]") {
  const auto logits = random({37, 1003}, at::kFloat) * 5;
  const auto target = targets(37, 1003);
  const auto coefficient = random({37});
  const auto all = run_kernel<float>(logits, target, 0.7),
             changed = run_kernel<float>(logits, target, 0.7, coefficient.const_data_ptr<double>());
  CHECK(identical(all.logits, logits));
  const Threads threads(3);
  const auto threaded = run_kernel<float>(logits, target, 0.7);
  CHECK(identical(threaded.log_prob, all.log_prob));
  CHECK(identical(threaded.entropy, all.entropy));
  for (int64_t i = 0; i < 37; ++i) {
    const auto one = run_kernel<float>(logits.narrow(0, i, 1), target.narrow(0, i, 1), 0.7),
               one_changed = run_kernel<float>(logits.narrow(0, i, 1),
                                               target.narrow(0, i, 1),
                                               0.7,
                                               coefficient.const_data_ptr<double>() + i);
    CHECK(identical(one.log_prob, all.log_prob.narrow(0, i, 1)));
    CHECK(identical(one.entropy, all.entropy.narrow(0, i, 1)));
    CHECK(identical(one_changed.logits, changed.logits.narrow(0, i, 1)));
  }
}

TEST_CASE("fp32 log-probabilities have the bits that the sampler computes, in any batch",
          "[core-token_log_probs]") {
  // at::mm promises no bits; the products of this test are on Cohort's GEMM or the machine is one
  // on which it is not chosen, and then only nearness is left to check.
  const int64_t rows = 600, classes = 4096;
  const auto x = random({rows, 48}, at::kFloat), head = random({classes, 48}, at::kFloat);
  const auto target = targets(rows, classes);
  const bool own = core::own_fp32_gemm();
  const auto same = [&](const at::Tensor& a, const at::Tensor& b) {
    return own ? identical(a, b) : error_of(a, b) < 1e-5;
  };
  for (const double temperature : {1.0, 0.7}) {
    const auto in = leaves({x, head}, at::kFloat);
    const auto whole = core::token_log_probs(in[0], in[1], target, temperature);
    const at::NoGradGuard no_grad;
    const Threads threads(2);
    for (const auto& [begin, count] :
         {std::pair<int64_t, int64_t>{0, 1}, {255, 2}, {17, 300}, {599, 1}}) {
      const auto x_rows = x.narrow(0, begin, count), target_rows = target.narrow(0, begin, count);
      const auto part = core::token_log_probs(x_rows, head, target_rows, temperature);
      CHECK(same(part.log_prob, whole.log_prob.narrow(0, begin, count)));
      CHECK(same(part.entropy, whole.entropy.narrow(0, begin, count)));
      const auto sampled = run_kernel<float>(core::linear(x_rows, head), target_rows, temperature);
      CHECK(same(sampled.log_prob.to(at::kFloat), part.log_prob));
      CHECK(same(sampled.entropy.to(at::kFloat), part.entropy));
    }
  }
}

TEST_CASE("At temperature 1 logits are not rounded", "[core-token_log_probs]") {
  // Against sums in fp64 of the very logits; 1 / 3 of a temperature of 3 would round them.
  const auto logits = random({5, 333}) * 30;
  const auto target = targets(5, 333);
  const auto at_1 = run_kernel<double>(logits, target, 1);
  const auto exact = at::log_softmax(logits, -1).gather(1, target.unsqueeze(1)).squeeze(1);
  CHECK(error_of(at_1.log_prob, exact) < 1e-15);
  const auto peak = at::tensor({3e7, 0.0, 1.0}, at::kFloat).unsqueeze(0);
  const auto sure = run_kernel<float>(peak, at::zeros({1}, at::kLong), 0.7);
  CHECK(sure.log_prob.item<double>() == 0);
  CHECK(sure.entropy.item<double>() == 0);
}

TEST_CASE("Infinite logits are classes without probability, NaN ones reach the result",
          "[core-token_log_probs]") {
  const double infinite = std::numeric_limits<double>::infinity();
  for (const auto dtype : {at::kFloat, at::kDouble}) {
    const auto logits =
        at::tensor({-infinite, 0.0, 0.0, -1e30}, at::kDouble).to(dtype).unsqueeze(0);
    const auto target = at::ones({1}, at::kLong);
    const auto run = dtype == at::kFloat ? &run_kernel<float> : &run_kernel<double>;
    const double coefficient = 2;
    const auto out = run(logits, target, 0.5, &coefficient);
    CHECK(out.log_prob.item<double>() == Approx(-std::log(2.0)));
    CHECK(out.entropy.item<double>() == Approx(std::log(2.0)));
    CHECK(error_of(out.logits[0], at::tensor({0.0, 2.0, -2.0, 0.0}, at::kDouble)) < 1e-6);
    CHECK(run(logits, at::zeros({1}, at::kLong), 1, nullptr).log_prob.item<double>() == -infinite);
    const auto broken = logits.clone();
    broken[0][3] = std::nan("");
    const auto nan = run(broken, target, 1, nullptr);
    CHECK(std::isnan(nan.log_prob.item<double>()));
    CHECK(std::isnan(nan.entropy.item<double>()));
  }
}

TEST_CASE("Only gradients that are wanted are computed, and tokens without one cost nothing",
          "[core-token_log_probs]") {
  const auto target = targets(300, 4096);
  const auto x = random({300, 4}), head = random({4096, 4});
  const auto in = leaves({x, head});
  const auto d_out = random({300}) * at::arange(300).remainder(3).eq(0).to(at::kDouble);
  const auto both = gradients_of(ours(target, 0.7), in, d_out),
             expected = gradients_of(reference(target, 0.7), in, d_out);
  for (int i : {0, 1}) CHECK(error_of(both[i], expected[i]) < 1e-12);
  CHECK(both[0][1].abs().max().item<double>() == 0);
  const Function of_x =
                     [&](const auto&v) {
                       return ours(target, 0.7)({v[0], head});
                     },
                 of_head = [&](const auto&v) {
                   return ours(target, 0.7)({x, v[0]});
                 };
  CHECK(error_of(gradients_of(of_x, {in[0]}, d_out)[0], both[0]) < 1e-14);
  CHECK(error_of(gradients_of(of_head, {in[1]}, d_out)[0], both[1]) < 1e-14);
  for (const auto& g : gradients_of(ours(target, 0.7), in, at::zeros({300})))
    CHECK(g.abs().max().item<double>() == 0);
  const at::NoGradGuard no_grad;
  CHECK_FALSE(core::token_log_probs(in[0], in[1], target, 1).log_prob.requires_grad());
}

TEST_CASE("No tokens have no log-probabilities and no gradient", "[core-token_log_probs]") {
  for (const auto dtype : {at::kFloat, at::kDouble, at::kBFloat16}) {
    const auto in = leaves({random({0, 3}), random({10, 3})}, dtype);
    const auto none = at::empty({0}, at::kLong);
    CHECK(core::token_log_probs(in[0], in[1], none, 1).log_prob.numel() == 0);
    CHECK(core::token_log_probs(in[0], in[1], none, 1).entropy.numel() == 0);
    const auto g = gradients_of([&](const auto& v) { return ours(none, 1)(v).sum(); }, in);
    CHECK(g[0].numel() == 0);
    CHECK(g[1].abs().max().item<double>() == 0);
  }
}

TEST_CASE("What does not fit is refused", "[core-token_log_probs]") {
  const auto x = random({2, 3}), head = random({4, 3});
  const auto good = at::tensor({0, 3}, at::kLong);
  CHECK_NOTHROW(core::token_log_probs(x, head, good, 1));
  const double nan = std::nan("");
  for (const double temperature : {0.0, -1.0, nan, 1 / 0.0, 1e-320})
    CHECK_THROWS_AS(core::token_log_probs(x, head, good, temperature), Error);
  for (const auto& target : {at::tensor({0, 4}, at::kLong),
                             at::tensor({0, -1}, at::kLong),
                             at::tensor({0}, at::kLong),
                             at::tensor({0, 3}, at::kInt)})
    CHECK_THROWS_AS(core::token_log_probs(x, head, target, 1), Error);
  CHECK_THROWS_AS(core::token_log_probs(x, random({4, 2}), good, 1), Error);
  CHECK_THROWS_AS(core::token_log_probs(x, head.to(at::kFloat), good, 1), Error);
  CHECK_THROWS_AS(core::token_log_probs(x, random({0, 3}), good, 1), Error);
  CHECK_THROWS_AS(core::token_log_probs(x.to(at::kInt), head.to(at::kInt), good, 1), Error);
}
