#include "core/base/error.h"
#include "core/nn/token_log_probs.h"
#include "tests/catch.h"

using namespace cohort;

TEST_CASE("scores of tokens are their log-probabilities, and tell the likeliest",
          "[token-log-probs]") {
  at::manual_seed(1);
  for (const auto dtype : {at::kFloat, at::kDouble, at::kBFloat16}) {
    const at::Tensor x = at::randn({700, 8}).to(dtype), head = at::randn({3000, 8}).to(dtype);
    const at::Tensor logits = at::mm(x, head.t());
    at::Tensor target = at::randint(3000, {700}, at::kLong);
    target.slice(0, 0, 700, 3).copy_(logits.argmax(1).slice(0, 0, 700, 3));
    const auto scores = core::score_tokens(x, head, target);
    const at::Tensor expected =
        logits.to(at::kDouble).log_softmax(1).gather(1, target.unsqueeze(1)).squeeze(1);
    CHECK(scores.log_prob.scalar_type() == at::kDouble);
    CHECK((scores.log_prob - expected).abs().max().item<double>() < (dtype == at::kDouble  ? 1e-12
                                                                     : dtype == at::kFloat ? 2e-5
                                                                                           : 0.2));
    if (dtype != at::kBFloat16) CHECK(at::equal(scores.likeliest, logits.argmax(1).eq(target)));
    CHECK(scores.likeliest.sum().item<int64_t>() >= 200);
  }
  CHECK(core::score_tokens(at::zeros({0, 8}), at::zeros({5, 8}), at::zeros({0}, at::kLong))
            .log_prob.numel() == 0);
  CHECK_THROWS_AS(
      core::score_tokens(at::zeros({1, 8}), at::zeros({5, 8}), at::full({1}, 5, at::kLong)), Error);
}
