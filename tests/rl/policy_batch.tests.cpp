// Sequences packed end to end.
#include "rl/policy_batch.h"

#include "core/nn/linear.h"
#include "tests/catch.h"
#include "tests/rl/policy_fakes.h"

using namespace cohort;

namespace {

rl::Generated generated(std::vector<int32_t> tokens, std::vector<float> log_prob) {
  rl::Generated out;
  out.tokens = std::move(tokens);
  out.log_prob = std::move(log_prob);
  return out;
}

std::vector<int64_t> values(const at::Tensor& tensor) {
  const at::Tensor flat = tensor.to(at::kLong).contiguous();
  const int64_t* value = flat.const_data_ptr<int64_t>();
  return {value, value + flat.numel()};
}

}  // namespace

TEST_CASE("a pack holds every token that something is predicted from", "[rl-policy_batch]") {
  const std::vector<int32_t> first{7, 8, 9}, second{5};
  const auto a = generated({10, 11}, {-1, -2}), b = generated({20, 21, 22}, {-3, -4, -5});
  const std::vector<rl::PolicySequence> sequences{{first, &a, 0.5, true}, {second, &b, -1, false}};
  const auto batch = rl::pack(sequences);
  CHECK(values(batch.input_ids) == std::vector<int64_t>{7, 8, 9, 10, 5, 20, 21});
  CHECK(values(batch.target) == std::vector<int64_t>{10, 11, 20, 21, 22});
  CHECK(values(batch.row) == std::vector<int64_t>{2, 3, 4, 5, 6});
  CHECK(values(batch.sequence) == std::vector<int64_t>{0, 0, 1, 1, 1});
  CHECK(values(batch.mask) == std::vector<int64_t>{1, 1, 0, 0, 0});
  CHECK(at::equal(batch.old_log_prob, at::tensor({-1.f, -2.f, -3.f, -4.f, -5.f})));
  CHECK(at::equal(batch.advantage, at::tensor({0.5, -1.0}, at::kDouble)));
  CHECK_FALSE(batch.expert_TLK.defined());
  REQUIRE(batch.layout.runs.size() == 2);
  CHECK(batch.layout.seq_len == 7);
  CHECK_FALSE(batch.layout.one_run_a_row);
  CHECK(batch.layout.runs[1].first == 4);
  CHECK(batch.layout.runs[1].count == 3);
  CHECK(batch.layout.runs[1].position == 0);
}

TEST_CASE("a sequence has the same log-probabilities alone and in a pack", "[rl-policy_batch]") {
  const auto mesh = distributed::make_local_mesh();
  moe::Transformer model(tests::policy_model(), mesh.ep, 3, at::kFloat);
  tests::DrawnSequences drawn(model, mesh.ep);
  at::NoGradGuard no_grad;
  moe::PassOptions pass;
  pass.absorbed = true;
  const auto together = rl::log_probs(model, rl::pack(drawn.sequences), pass, 1.0).log_prob;
  int64_t at = 0;
  for (const auto& sequence : drawn.sequences) {
    const auto alone = rl::log_probs(model, rl::pack({&sequence, 1}), pass, 1.0).log_prob;
    const auto packed = together.narrow(0, at, alone.numel());
    CHECK(at::allclose(packed, alone, 1e-5, 1e-6));
    if (core::own_fp32_gemm()) CHECK(at::equal(packed, alone));
    at += alone.numel();
  }
  CHECK(at == together.numel());
}
