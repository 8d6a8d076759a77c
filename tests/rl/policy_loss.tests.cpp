#include "rl/policy_loss.h"

#include <cmath>

#include "core/base/error.h"
#include "core/io/safetensors.h"
#include "tests/catch.h"
#include "tests/core/gradients.h"
#include "tests/fixtures.h"
#include "tests/rl/policy_loss_cases.h"

using namespace cohort;
using namespace cohort::tests;

namespace {

const char* const kKinds[] = {"grpo", "bnpo", "dr_grpo", "dapo", "gspo"};

/// 8 sequences of up to 9 tokens, one of them wholly masked; ratios beyond both bounds occur.
PaddedTokens random_tokens() {
  PaddedTokens padded;
  padded.log_prob = -at::rand({8, 9}, at::kDouble) * 3;
  padded.old_log_prob = padded.log_prob + 0.4 * random({8, 9});
  padded.ref_log_prob = padded.log_prob + 0.4 * random({8, 9});
  const auto length = at::tensor({9, 1, 4, 0, 7, 3, 8, 5}, at::kLong).unsqueeze(1);
  padded.mask = at::arange(9, at::kLong).unsqueeze(0).lt(length);
  padded.advantage = random({8});
  return padded;
}

rl::PolicyTokens tokens_of(std::vector<double> log_prob,
                           std::vector<double> old_log_prob,
                           std::vector<int64_t> sequence,
                           std::vector<double> advantage) {
  const auto n = static_cast<int64_t>(log_prob.size());
  return {at::tensor(log_prob, at::kDouble),
          at::tensor(old_log_prob, at::kDouble),
          {},
          at::tensor(sequence, at::kLong),
          at::ones({n}, at::kBool),
          at::tensor(advantage, at::kDouble)};
}

}  // namespace

TEST_CASE("Every policy loss and its gradient equal the reference", "[rl-policy_loss][parity]") {
  for (const auto& path : cases("grpo")) {
    auto f = core::read_safetensors(path.string());
    const PaddedTokens padded{f.at("logp"),
                              f.at("old"),
                              f.at("ref"),
                              f.at("mask").to(at::kBool),
                              f.at("advantages_group")};
    rl::PolicyLossOptions options;
    options.clip_low = f.at("eps_low").item<double>();
    options.clip_high = f.at("eps_high").item<double>();
    options.beta = f.at("beta").item<double>();
    options.max_new_tokens = f.at("max_len").item<int64_t>();
    for (const std::string kind : kKinds)
      for (const auto packing : {Packing::kMasked, Packing::kLeftOut})
        for (const auto& [dtype, bound] : {std::pair{at::kDouble, 1e-12}, {at::kFloat, 1e-5}})
          for (const int64_t per_batch : {0, 3}) {
            INFO(path.filename().string()
                 << ", " << kind << (packing == Packing::kMasked ? ", masked" : ", left out")
                 << ", " << at::toString(dtype) << ", batches of " << per_batch);
            options.kind = rl::policy_loss_kind(kind);
            const auto loss = summed_loss(padded, options, packing, dtype, per_batch);
            const double expected = f.at("loss_" + kind).item<double>();
            CHECK(std::abs(loss.total - expected) <= bound * std::max(1.0, std::abs(expected)));
            CHECK(error_of(loss.d_log_prob, f.at("d_logp_" + kind)) < bound);
          }
  }
}

TEST_CASE("Gradients of policy losses equal finite differences", "[rl-policy_loss]") {
  const auto padded = random_tokens();
  for (const std::string kind : kKinds) {
    INFO(kind);
    rl::PolicyLossOptions options{rl::policy_loss_kind(kind), 0.2, 0.3, 0.1, 16};
    const auto tokens = packed(padded, Packing::kMasked, at::kDouble, 0, 8);
    const Function loss = [&](const auto& in) {
      auto moved = tokens;
      moved.log_prob = in[0];
      return rl::policy_loss(moved, options, {8, 37}).total;
    };
    check_finite_differences(loss, {tokens.log_prob}, 1e-7);
  }
}

TEST_CASE("Micro-batches add up to the loss, gradient and counts of the whole",
          "[rl-policy_loss]") {
  const auto padded = random_tokens();
  for (const std::string kind : kKinds)
    for (const int64_t per_batch : {4, 2, 3}) {
      INFO(kind << ", batches of " << per_batch);
      const rl::PolicyLossOptions options{rl::policy_loss_kind(kind), 0.2, 0.3, 0.1, 16};
      const auto whole = summed_loss(padded, options),
                 parts = summed_loss(padded, options, Packing::kMasked, at::kDouble, per_batch);
      CHECK(parts.total == Approx(whole.total).epsilon(1e-13));
      CHECK(error_of(parts.d_log_prob, whole.d_log_prob) < 1e-14);
      CHECK(whole.d_log_prob.abs().max().item<double>() > 0);
      CHECK(parts.kl == Approx(whole.kl).epsilon(1e-13));
      CHECK(parts.ratio_sum == Approx(whole.ratio_sum).epsilon(1e-13));
      CHECK(parts.clipped == whole.clipped);
    }
}

TEST_CASE("Ratios count as clipped on the side that their advantage pushes to",
          "[rl-policy_loss]") {
  // Ratios 1.5, 1.1, 0.5 of a good sequence; 1.5, 0.9, 0.5, 0.4 of a bad one; 2 of one that is
  // neither.
  const std::vector<double> ratios = {1.5, 1.1, 0.5, 1.5, 0.9, 0.5, 0.4, 2};
  std::vector<double> log_prob;
  for (const double r : ratios) log_prob.push_back(std::log(r) - 1);
  auto tokens =
      tokens_of(log_prob, std::vector<double>(8, -1.0), {0, 0, 0, 1, 1, 1, 1, 2}, {1.0, -2.0, 0.0});
  tokens.log_prob.set_requires_grad(true);
  rl::PolicyLossOptions options;
  options.kind = rl::PolicyLossKind::kDapo;
  const auto loss = rl::policy_loss(tokens, options, {3, 8});
  CHECK(loss.clipped == 3);
  CHECK(loss.ratio_sum == Approx(1.5 + 1.1 + 0.5 + 1.5 + 0.9 + 0.5 + 0.4 + 2));
  CHECK(loss.kl == 0);
  const double good = 1.2 + 1.1 + 0.5, bad = 1.5 + 0.9 + 0.8 + 0.8;
  CHECK(loss.total.item<double>() == Approx((2 * bad - good) / 8));
  const auto g = torch::autograd::grad({loss.total}, {tokens.log_prob})[0] * 8;
  CHECK(error_of(g, at::tensor({0.0, -1.1, -0.5, 3.0, 1.8, 0.0, 0.0, 0.0}, at::kDouble)) < 1e-14);

  options.kind = rl::PolicyLossKind::kGspo;
  const auto of_sequences = rl::policy_loss(tokens, options, {3, 8});
  const double first = std::cbrt(1.5 * 1.1 * 0.5), second = std::pow(1.5 * 0.9 * 0.5 * 0.4, 0.25);
  CHECK(of_sequences.ratio_sum == Approx(3 * first + 4 * second + 2));
  CHECK(of_sequences.clipped == 4);
}

TEST_CASE("On policy a ratio is exactly 1 and the gradient is the advantage's",
          "[rl-policy_loss]") {
  // The very tensor being trained as its own past: only the present is differentiated.
  auto log_prob = -at::rand({6}, at::kFloat);
  log_prob.set_requires_grad(true);
  const rl::PolicyTokens tokens{log_prob,
                                log_prob,
                                log_prob,
                                at::tensor({0, 0, 1, 1, 1, 1}, at::kLong),
                                at::ones({6}, at::kBool),
                                at::tensor({1.0, -0.5}, at::kDouble)};
  for (const std::string kind : kKinds) {
    INFO(kind);
    const rl::PolicyLossOptions options{rl::policy_loss_kind(kind), 0.2, 0.2, 0.1, 4};
    const auto loss = rl::policy_loss(tokens, options, {2, 6});
    CHECK(loss.ratio_sum == 6);
    CHECK(loss.clipped == 0);
    CHECK(loss.kl == 0);
    const auto g = torch::autograd::grad({loss.total}, {log_prob})[0];
    const bool of_means = kind == "grpo" || kind == "gspo";
    const double w0 = of_means ? 1.0 / 4 : kind == "dr_grpo" ? 1.0 / 8 : 1.0 / 6;
    const double w1 = of_means ? 1.0 / 8 : w0;
    CHECK(g[0].item<double>() == Approx(-w0));
    CHECK(g[5].item<double>() == Approx(0.5 * w1));
  }
}

TEST_CASE("What is masked has no effect, NaN neither", "[rl-policy_loss]") {
  const auto padded = random_tokens();
  auto broken = padded;
  for (auto* t : {&broken.log_prob, &broken.old_log_prob, &broken.ref_log_prob})
    *t = t->masked_fill(padded.mask.logical_not(), std::nan(""));
  for (const std::string kind : kKinds) {
    const rl::PolicyLossOptions options{rl::policy_loss_kind(kind), 0.2, 0.3, 0.1, 16};
    const auto expected = summed_loss(padded, options, Packing::kMasked),
               found = summed_loss(broken, options, Packing::kMasked);
    CHECK(found.total == expected.total);
    CHECK(identical(found.d_log_prob, expected.d_log_prob));
  }
}

TEST_CASE("A loss over no token is 0 with a gradient of 0", "[rl-policy_loss]") {
  for (const std::string kind : kKinds)
    for (const int64_t n : {0, 3}) {
      auto log_prob = at::full({n}, -1.0, at::kFloat);
      log_prob.set_requires_grad(true);
      const rl::PolicyTokens tokens{log_prob,
                                    log_prob,
                                    {},
                                    at::zeros({n}, at::kLong),
                                    at::zeros({n}, at::kBool),
                                    at::ones({1}, at::kDouble)};
      const rl::PolicyLossOptions options{rl::policy_loss_kind(kind), 0.2, 0.2, 0, 4};
      const auto loss = rl::policy_loss(tokens, options, {1, 0});
      CHECK(loss.total.item<double>() == 0);
      CHECK(identical(torch::autograd::grad({loss.total}, {log_prob})[0],
                      at::zeros({n}, at::kFloat)));
    }
}

TEST_CASE("Without beta a reference is measured and not trained on", "[rl-policy_loss]") {
  const auto padded = random_tokens();
  auto without = padded;
  without.ref_log_prob = at::Tensor();
  rl::PolicyLossOptions options;
  const auto measured = summed_loss(padded, options), plain = summed_loss(without, options);
  CHECK(measured.total == plain.total);
  CHECK(identical(measured.d_log_prob, plain.d_log_prob));
  CHECK(plain.kl == 0);
  const auto d = (padded.ref_log_prob - padded.log_prob).masked_select(padded.mask);
  CHECK(measured.kl == Approx((d.exp() - d - 1).sum().item<double>()));
}

TEST_CASE("Policy losses refuse names and tensors that do not fit", "[rl-policy_loss]") {
  CHECK(rl::policy_loss_kind("dr_grpo") == rl::PolicyLossKind::kDrGrpo);
  CHECK_THROWS_WITH(rl::policy_loss_kind("ppo"),
                    "policy loss 'ppo': should be grpo, bnpo, dr_grpo, dapo or gspo");
  CHECK_THROWS_AS(rl::policy_loss_kind(""), InputError);
  const auto good = tokens_of({-1, -2, -3}, {-1, -2, -3}, {0, 0, 1}, {1.0, 2.0});
  const rl::PolicyLossOptions options;
  CHECK_NOTHROW(rl::policy_loss(good, options, {2, 3}));
  const auto refused = [&](auto&& change) {
    auto tokens = good;
    auto changed = options;
    rl::LossCounts counts{2, 3};
    change(tokens, changed, counts);
    CHECK_THROWS_AS(rl::policy_loss(tokens, changed, counts), Error);
  };
  refused([](auto& t, auto&, auto&) { t.log_prob = at::Tensor(); });
  refused([](auto& t, auto&, auto&) { t.old_log_prob = at::zeros({2}); });
  refused([](auto& t, auto&, auto&) { t.mask = at::ones({3}, at::kLong); });
  refused([](auto& t, auto&, auto&) { t.sequence = at::tensor({0, 1, 0}, at::kLong); });
  refused([](auto& t, auto&, auto&) { t.sequence = at::tensor({0, 1, 2}, at::kLong); });
  refused([](auto& t, auto&, auto&) { t.sequence = at::tensor({-1, 0, 1}, at::kLong); });
  refused([](auto& t, auto&, auto&) { t.advantage = at::ones({2}, at::kFloat); });
  refused([](auto&, auto& o, auto&) { o.beta = 0.1; });
  refused([](auto&, auto& o, auto&) { o.max_new_tokens = 0; });
  refused([](auto&, auto&, auto& c) { c.sequences = 0; });
}
