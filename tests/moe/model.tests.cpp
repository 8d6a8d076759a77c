// The whole model against Hugging Face's, case by case.
#include "core/nn/cross_entropy.h"
#include "distributed/sharded_optimizer.h"
#include "tests/catch.h"
#include "tests/fixtures.h"
#include "tests/moe/reference_model.h"

using namespace cohort;
namespace fs = std::filesystem;

namespace {

double largest(const at::Tensor& t) { return t.numel() ? t.abs().max().item<double>() : 0; }

at::Tensor logits_of(tests::ReferenceModel& r, const at::Tensor& ids) {
  const at::Tensor hidden = r.model->forward(ids, at::Tensor(), {}).hidden;
  return at::matmul(hidden, r.model->head().t());
}

at::Tensor mean_loss(tests::ReferenceModel& r, const at::Tensor& ids) {
  const int64_t S = ids.size(1) - 1;
  const at::Tensor hidden = r.model->forward(ids, at::Tensor(), {}).hidden.narrow(1, 0, S);
  const at::Tensor target = ids.narrow(1, 1, S).reshape({-1});
  return core::linear_cross_entropy_sum(
             hidden.reshape({-1, hidden.size(2)}), r.model->head(), target) /
         target.numel();
}

void check_case(const fs::path& folder) {
  INFO(folder.string());
  tests::ReferenceModel r(folder);
  auto io = core::read_safetensors((folder / "io.safetensors").string());
  // The reference's own fp32 and fp64 runs differ by 3e-6 in the logits.
  {
    at::NoGradGuard no_grad;
    CHECK(largest(logits_of(r, io["input_ids"]) - io["logits"]) < 2e-4);
  }
  const at::Tensor loss = mean_loss(r, io["input_ids"]);
  CHECK(std::abs(loss.item<double>() - io["loss"].item<double>()) < 1e-5);

  core::OptimizerConfig adamw;
  adamw.clip = 0;
  adamw.decay_vectors = true;
  distributed::ShardedOptimizer optimizer(r.model->parameters(), r.mesh, adamw);
  optimizer.zero_gradients();
  optimizer.expect_last_backward();
  mean_loss(r, io["input_ids"]).backward();
  const auto gradients = core::read_safetensors((folder / "grads.safetensors").string());
  tests::compare_parts(
      *r.model,
      gradients,
      [](const core::Parameter& p) { return p.value.grad(); },
      [](const std::string& name, const at::Tensor& ours, const at::Tensor& theirs) {
        INFO(name);
        CHECK(largest(ours - theirs) <= 1e-4 * largest(theirs) + 1e-12);
      });

  optimizer.step(1e-3);
  const auto after = core::read_safetensors((folder / "step1.safetensors").string());
  tests::compare_parts(
      *r.model,
      after,
      [](const core::Parameter& p) { return p.value.detach(); },
      [&](const std::string& name, const at::Tensor& ours, const at::Tensor& theirs) {
        INFO(name);
        // Adam's first step is the gradient's sign: where that is all but zero it may go either
        // way.
        const at::Tensor clear = gradients.at(name).abs().ge(1e-6);
        CHECK(largest((ours - theirs) * clear) < 2e-6);
      });
}

void check_padded(const fs::path& folder) {
  INFO(folder.string());
  tests::ReferenceModel r(folder);
  auto t = core::read_safetensors((folder / "padded.safetensors").string());
  at::NoGradGuard no_grad;
  const at::Tensor mask = t["attention_mask"].unsqueeze(-1);
  CHECK(largest((logits_of(r, t["input_ids"]) - t["logits"]) * mask) < 2e-4);
}

void check_greedy(const fs::path& folder) {
  INFO(folder.string());
  tests::ReferenceModel r(folder);
  at::NoGradGuard no_grad;
  for (const auto& item : tests::read_json(folder / "greedy.json")) {
    auto ids = item.at("prompt").get<std::vector<int64_t>>();
    const auto expected = item.at("continuation").get<std::vector<int64_t>>();
    std::vector<int64_t> got;
    while (got.size() < expected.size()) {
      const at::Tensor input = at::tensor(ids, at::kLong).unsqueeze(0);
      got.push_back(logits_of(r, input)[0][-1].argmax().item<int64_t>());
      ids.push_back(got.back());
    }
    CHECK(got == expected);
  }
}

}  // namespace

TEST_CASE("DeepSeek-V3 cases: logits, loss, every gradient, one AdamW step",
          "[moe][model][parity]") {
  for (const auto& folder : tests::cases("deepseek_v3")) {
    check_case(folder);
    if (fs::exists(folder / "padded.safetensors")) check_padded(folder);
    check_greedy(folder);
  }
}

TEST_CASE("Qwen cases: logits, loss, every gradient, one AdamW step", "[moe][model][parity]") {
  for (const auto& folder : tests::cases("qwen")) {
    check_case(folder);
    if (fs::exists(folder / "padded.safetensors")) check_padded(folder);
    check_greedy(folder);
  }
}
