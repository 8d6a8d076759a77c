// Generation and GRPO through the device branch, run on the CPU.
#include "tests/device_branch.h"

#include "distributed/sharded_optimizer.h"
#include "moe/model_state.h"
#include "rl/grpo_step.h"
#include "rl/log_likelihood.h"
#include "rl/reference_model.h"
#include "rl/sft_loss.h"
#include "tests/catch.h"
#include "tests/core/gradients.h"
#include "tests/rl/policy_fakes.h"
#include "tests/rl/sft_examples.h"

using namespace cohort;
using namespace cohort::tests;

namespace {

core::ModelConfig grouped_query_model() {
  auto c = policy_model();
  c.kv_lora_rank = c.q_lora_rank = 0;
  c.head_dim = 8;
  c.num_key_value_heads = 1;
  c.rope_interleave = false;
  return c;
}

rl::GrpoStepOptions options() {
  rl::GrpoStepOptions out;
  out.group_size = 4;
  out.micro_batch = 3;
  out.step.lr = 1e-2;
  return out;
}

}  // namespace

TEST_CASE("Device branch: completions are those of the CPU", "[rl-device]") {
  for (const auto& config : {policy_model(), grouped_query_model()}) {
    const auto mesh = distributed::make_local_mesh();
    moe::Transformer model(config, mesh.ep, 3, at::kDouble);
    const DrawnSequences expected(model, mesh.ep);
    const DeviceBranch branch;
    const DrawnSequences found(model, mesh.ep);
    for (size_t g = 0; g < expected.groups.size(); ++g)
      for (size_t i = 0; i < expected.groups[g].size(); ++i) {
        const auto &a = found.groups[g][i], &b = expected.groups[g][i];
        CHECK(a.tokens == b.tokens);
        CHECK(at::equal(a.experts, b.experts));
        for (size_t t = 0; t < a.log_prob.size(); ++t) {
          CHECK(a.log_prob[t] == Approx(b.log_prob[t]).margin(1e-6));
          CHECK(a.entropy[t] == Approx(b.entropy[t]).margin(1e-6));
        }
      }
  }
}

TEST_CASE("Device branch: a GRPO step equals the CPU's", "[rl-device]") {
  for (const auto& [dtype, tolerance] : {std::pair{at::kDouble, 1e-7}, {at::kFloat, 1e-3}}) {
    INFO(at::toString(dtype));
    const auto mesh = distributed::make_local_mesh();
    moe::Transformer sampler(policy_model(), mesh.ep, 3, dtype);
    const DrawnSequences drawn(sampler, mesh.ep);
    const rl::ReferenceModel reference(sampler, mesh);
    core::OptimizerConfig settings;
    settings.clip = 0;
    auto grpo = options();
    grpo.loss.beta = 0.1;
    grpo.passes = 2;
    struct Result {
      rl::GrpoStepReport report;
      at::Tensor gradient, weight;
    };
    const auto step = [&, dtype = dtype]() -> Result {
      moe::Transformer model(policy_model(), mesh.ep, 3, dtype);
      distributed::ShardedOptimizer optimizer(model.parameters(), mesh, settings);
      rl::ReferenceModel fixed(model, mesh);
      auto report = rl::grpo_step(model, optimizer, mesh, &fixed.model(), drawn.sequences, grpo);
      const std::string name = "model.layers.1.mlp.experts.2.down_proj.weight";
      return {report,
              optimizer.reduced_gradient(name).clone(),
              model.parameters()[3].value.detach().clone()};
    };
    const Result expected = step();
    const DeviceBranch branch;
    const Result found = step();
    CHECK(found.report.loss == Approx(expected.report.loss).epsilon(tolerance).margin(tolerance));
    CHECK(found.report.kl == Approx(expected.report.kl).epsilon(tolerance).margin(tolerance));
    CHECK(found.report.grad_norm == Approx(expected.report.grad_norm).epsilon(tolerance));
    CHECK(found.report.clip_fraction == expected.report.clip_fraction);
    CHECK(found.report.logp_drift_max < 1e-5);
    CHECK(found.report.routing_mismatched == expected.report.routing_mismatched);
    CHECK(found.report.routing_compared == expected.report.routing_compared);
    CHECK(error_of(found.gradient, expected.gradient) < 20 * tolerance);
    CHECK(error_of(found.weight, expected.weight) < 20 * tolerance);
    for (size_t i = 0; i < found.report.loads.size(); ++i)
      CHECK(at::equal(found.report.loads[i], expected.report.loads[i]));
  }
}

TEST_CASE("Device branch: a GRPO update copies to the host what it must", "[rl-device]") {
  const auto mesh = distributed::make_local_mesh();
  moe::Transformer model(policy_model(), mesh.ep, 3, at::kFloat);
  const DrawnSequences drawn(model, mesh.ep);
  distributed::ShardedOptimizer optimizer(model.parameters(), mesh, {});
  const DeviceBranch branch;
  for (const int64_t micro_batch : {8, 4, 1}) {
    auto grpo = options();
    grpo.micro_batch = micro_batch;
    const int64_t before = core::num_host_copies();
    rl::grpo_step(model, optimizer, mesh, nullptr, drawn.sequences, grpo);
    // A pass: the counts of each layer's dispatch, its log-probabilities, its mismatches. Once: the
    // gradient norm and the loads; the loss terms are on the CPU already, and counted there.
    const auto layers = static_cast<int64_t>(model.moe_layers().size());
    CHECK(core::num_host_copies() - before == 8 / micro_batch * (layers + 2) + 3);
  }
}

TEST_CASE("Device branch: mismatches of a replay are brought home by settle", "[rl-device]") {
  const auto mesh = distributed::make_local_mesh();
  moe::Transformer model(policy_model(), mesh.ep, 3, at::kFloat);
  const DrawnSequences drawn(model, mesh.ep);
  const auto batch = rl::pack(drawn.sequences);
  for (const bool on_device : {false, true}) {
    std::optional<DeviceBranch> branch;
    if (on_device) branch.emplace();
    moe::PassOptions pass;
    pass.absorbed = true;
    pass.replay = std::make_shared<moe::RoutingReplay>();
    pass.replay->expert_TLK = batch.expert_TLK.clone();
    // One token is sent elsewhere than its router says.
    const auto row = pass.replay->expert_TLK[2][0];
    row.copy_(
        at::where(row.eq(7).any(), at::tensor({0, 1}, at::kShort), at::tensor({6, 7}, at::kShort)));
    at::NoGradGuard no_grad;
    rl::log_probs(model, batch, pass, 1);
    CHECK(pass.replay->pending.defined() == on_device);
    pass.replay->settle();
    CHECK(pass.replay->mismatched >= 1);
    CHECK(!pass.replay->pending.defined());
  }
}

TEST_CASE("Device branch: SFT steps equal the CPU's, and wait where they must", "[rl-device]") {
  const ScratchFolder folder;
  const core::Tokenizer tokenizer = chat_tokenizer();
  std::vector<rl::SftFile> files;
  files.emplace_back(folder.write("x.jsonl", made_up_examples(12, 1)), format_of(tokenizer), 64);
  const auto rows = rl::pack_rows(files, 64);
  const auto counts = rl::count_rows(files, rows, 2);
  const auto mesh = distributed::make_local_mesh();
  auto config = tiny_model();
  config.vocab_size = 280;
  const auto passes = static_cast<int64_t>(rows.size());
  REQUIRE(passes > 1);
  struct Result {
    std::vector<double> numbers;
    int64_t copies, waits, layers;
  };
  const auto train = [&](bool recompute) -> Result {
    moe::Transformer model(config, mesh.ep, 3, at::kDouble);
    distributed::ShardedOptimizer optimizer(model.parameters(), mesh, {});
    const auto loss = [&](int64_t i) {
      const auto batch = rl::make_sft_batch(files, {&rows[static_cast<size_t>(i)], 1}, 2);
      return rl::sft_loss(model, batch, counts.targets, 0.3, recompute);
    };
    Result result;
    for (int step = 0; step < 3; ++step) {
      const int64_t before = core::num_host_copies();
      const Waits waits;
      const auto report = moe::train_step(model, optimizer, mesh, passes, loss, {1e-3, 0.01});
      result.waits = Waits::count();
      result.copies = core::num_host_copies() - before;
      result.layers = static_cast<int64_t>(report.loads.size());
      for (const double number : {report.loss, report.update.grad_norm, report.max_violation})
        result.numbers.push_back(number);
      for (const auto& [name, value] : report.parts) result.numbers.push_back(value);
    }
    return result;
  };
  const Result expected = train(false);
  const DeviceBranch branch;
  for (const bool recompute : {false, true}) {
    const Result found = train(recompute);
    for (size_t i = 0; i < expected.numbers.size(); ++i)
      CHECK(found.numbers[i] == Approx(expected.numbers[i]).epsilon(1e-10).margin(1e-12));
    CHECK(found.waits == 0);
    CHECK(found.copies == found.layers * passes + 3);
  }
}

TEST_CASE("Device branch: likelihoods equal the CPU's", "[rl-device]") {
  const auto mesh = distributed::make_local_mesh();
  for (const auto& config : {policy_model(), grouped_query_model()}) {
    moe::Transformer model(config, mesh.ep, 3, at::kDouble);
    const std::vector<rl::LikelihoodRequest> requests{
        {{3, 9, 4}, {7, 1}}, {{5}, {2, 17, 8, 9, 11, 30}}, {{1, 2, 3, 4, 5, 6, 7}, {8}}};
    const auto expected = rl::log_likelihoods(model, mesh, requests, 6);
    const DeviceBranch branch;
    const auto found = rl::log_likelihoods(model, mesh, requests, 6);
    for (size_t i = 0; i < requests.size(); ++i) {
      CHECK(found[i].log_prob == Approx(expected[i].log_prob).epsilon(1e-6));
      CHECK(found[i].likeliest == expected[i].likeliest);
    }
  }
}
