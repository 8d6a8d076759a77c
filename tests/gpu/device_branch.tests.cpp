// What only a GPU can show: the device branch there against the CPU's kernels, and a training step
// in which nothing but to_host waits. Built with COHORT_GPU; ctest label gpu.
#include <ATen/core/grad_mode.h>
#include <c10/cuda/CUDAFunctions.h>

#include <cstdio>
#include <cstdlib>

#include "core/base/device_kernels.h"
#include "core/nn/attention.h"
#include "core/nn/attention_op.h"
#include "core/nn/cross_entropy.h"
#include "core/nn/head_linear.h"
#include "core/nn/linear.h"
#include "core/nn/rms_norm.h"
#include "core/nn/rope.h"
#include "core/nn/swiglu.h"
#include "core/nn/token_log_probs.h"
#include "distributed/sharded_optimizer.h"
#include "moe/pretrain_loss.h"
#include "moe/router.h"
#include "moe/train_step.h"
#include "rl/generator.h"
#include "tests/catch.h"
#include "tests/core/gradients.h"
#include "tests/moe/tiny.h"
#include "tests/rl/policy_fakes.h"

using namespace cohort;
using namespace cohort::tests;

namespace {

/// Before Catch begins: where no GPU is, nothing runs and ctest calls it skipped.
[[maybe_unused]] const bool has_gpu = [] {
  if (c10::cuda::device_count() > 0) return true;
  std::puts("no GPU here: not run");
  std::fflush(stdout);
  std::_Exit(77);
}();

constexpr std::pair<at::ScalarType, double> kPrecisions[] = {
    {at::kDouble, 1e-11}, {at::kFloat, 2e-5}, {at::kBFloat16, 3e-2}};

std::vector<at::Tensor> on_gpu(const std::vector<at::Tensor>& tensors) {
  std::vector<at::Tensor> moved;
  for (const auto& t : tensors) moved.push_back(t.detach().to(at::kCUDA).set_requires_grad(true));
  return moved;
}

/// f and its gradients on the CPU and on the GPU.
void compare(const char* what, const Function& f, const std::vector<at::Tensor>& inputs) {
  for (const auto& [dtype, bound] : kPrecisions) {
    INFO(what << " in " << at::toString(dtype));
    const auto here = leaves(inputs, dtype), there = on_gpu(here);
    const auto expected = f(here), found = f(there);
    CHECK(found.is_cuda());
    CHECK(error_of(found.cpu(), expected) < bound);
    const auto d_out = at::randn(expected.sizes(), at::kDouble).to(dtype);
    const auto wanted = torch::autograd::grad({expected}, here, {d_out.to(expected.scalar_type())});
    const auto gradients =
        torch::autograd::grad({found}, there, {d_out.to(found.scalar_type()).to(at::kCUDA)});
    for (size_t i = 0; i < wanted.size(); ++i) {
      INFO("gradient of input " << i);
      CHECK(error_of(gradients[i].cpu(), wanted[i]) < bound);
    }
  }
}

struct Trained {
  std::vector<double> losses, norms;
  std::vector<at::Tensor> loads;
};

Trained train(at::ScalarType dtype, at::Device device, bool recompute = false) {
  auto mesh = distributed::make_local_mesh();
  mesh.device = device;
  const auto config = tiny_model();
  moe::Transformer model(config, mesh.ep, 7, dtype, device);
  distributed::ShardedOptimizer optimizer(model.parameters(), mesh, {});
  core::TrainConfig settings;
  settings.recompute = recompute ? "layer" : "none";
  core::RouterConfig router;
  router.sequence_loss_alpha = 0.01;
  Trained trained;
  for (int step = 0; step < 5; ++step) {
    const auto batches = share_of(random_rows(step + 1, 4, 16, config.vocab_size), 0, 1, 2);
    const auto loss = moe::pretrain_loss(batches, config, router, settings, mesh);
    const auto report = moe::train_step(model, optimizer, mesh, batches, loss, {1e-3, 0.01});
    trained.losses.push_back(report.loss);
    trained.norms.push_back(report.update.grad_norm);
    trained.loads = report.loads;
  }
  return trained;
}

/// While it lives, LibTorch throws where the host waits for the device.
class NoWaiting {
 public:
  NoWaiting() { set(c10::cuda::SyncDebugMode::L_ERROR); }
  ~NoWaiting() { set(c10::cuda::SyncDebugMode::L_DISABLED); }
  NoWaiting(const NoWaiting&) = delete;

 private:
  static void set(c10::cuda::SyncDebugMode mode) {
    c10::cuda::warning_state().set_sync_debug_mode(mode);
  }
};

}  // namespace

TEST_CASE("GPU: layers and products equal the CPU's", "[gpu]") {
  compare("rms_norm",
          [](const auto& in) { return core::rms_norm(in[0], in[1], 1e-6); },
          {random({3, 5, 64}), random({64})});
  compare("swiglu", [](const auto& in) { return core::swiglu(in[0]); }, {random({9, 48})});
  compare("linear",
          [](const auto& in) { return core::linear(in[0], in[1]); },
          {random({33, 64}), random({48, 64})});
  compare("grouped_linear",
          [](const auto& in) {
            return core::grouped_linear(in[0], in[1], {5, 0, 27, 1});
          },
          {random({33, 64}), random({4, 48, 64})});
  for (const bool transposed : {false, true})
    compare("head_linear",
            [&](const auto& in) { return core::head_linear(in[0], in[1], transposed); },
            {random({7, 3, 16}), transposed ? random({3, 8, 16}) : random({3, 16, 8})});
}

TEST_CASE("GPU: attention equals the CPU's", "[gpu]") {
  auto ids = at::zeros({2, 37}, at::kLong);
  ids[0].slice(0, 20).fill_(1);
  for (const auto& layout :
       {core::attention_layout(2, 37, {}), core::attention_layout(2, 37, ids)}) {
    compare(
        "grouped heads",
        [&](const auto& in) { return core::causal_attention(in[0], in[1], in[2], layout, 0.2); },
        {random({2, 37, 6, 32}), random({2, 37, 2, 32}), random({2, 37, 2, 32})});
    compare("MLA",
            [&](const auto& in) {
              const auto rope = core::rope_table({}, 16, 37, in[0].scalar_type());
              return core::attention_op(
                  {in[0], in[1], in[2], {}},
                  {rope.cos.to(in[0].device()), rope.sin.to(in[0].device()), true},
                  layout,
                  0.2);
            },
            {random({2, 37, 4, 48}), random({2, 37, 4, 32 + 32}), random({2, 37, 16})});
  }
}

TEST_CASE("GPU: attention by wgmma and TMA equals the CPU's", "[gpu]") {
  const auto* kernels =
      core::device_kernels(at::empty({1}, at::dtype(at::kBFloat16).device(at::kCUDA)));
  if (!kernels || !kernels->attends_by_wgmma(192, 128)) {
    WARN(
        "not run: the GPU is not of compute capability 9.0, or there are no kernels in this "
        "binary");
    return;
  }
  core::set_wgmma_attention(true);
  auto ids = at::zeros({2, 300}, at::kLong);
  ids[0].slice(0, 140).fill_(1);
  for (const auto& layout :
       {core::attention_layout(2, 300, {}), core::attention_layout(2, 300, ids)})
    for (const auto& [qk, v] : {std::pair{192, 128}, {128, 128}, {64, 64}})
      compare(
          "attention",
          [&](const auto& in) { return core::causal_attention(in[0], in[1], in[2], layout, 0.1); },
          {random({2, 300, 4, qk}), random({2, 300, 2, qk}), random({2, 300, 2, v})});
  core::set_wgmma_attention(false);
}

TEST_CASE("GPU: losses over the head equal the CPU's", "[gpu]") {
  auto target = at::randint(0, 501, {90}, at::kLong);
  compare("log-probabilities",
          [&](const auto& in) { return core::token_log_probs(in[0], in[1], target, 0.8).log_prob; },
          {random({90, 32}), random({501, 32}) * 0.2});
  const auto some = target.clone();
  some.slice(0, 2, 90, 5).fill_(-1);
  compare("cross-entropy",
          [&](const auto& in) { return core::linear_cross_entropy_sum(in[0], in[1], some); },
          {random({90, 32}), random({501, 32}) * 0.2});
}

TEST_CASE("GPU: training steps equal the CPU's, in fp64 and fp32", "[gpu]") {
  for (const auto& [dtype, tolerance] : {std::pair{at::kDouble, 1e-9}, {at::kFloat, 1e-4}})
    for (const bool recompute : {false, true}) {
      const Trained expected = train(dtype, at::kCPU), found = train(dtype, at::kCUDA, recompute);
      for (size_t i = 0; i < expected.losses.size(); ++i) {
        CHECK(found.losses[i] == Approx(expected.losses[i]).epsilon(tolerance));
        CHECK(found.norms[i] == Approx(expected.norms[i]).epsilon(10 * tolerance));
      }
      if (dtype == at::kDouble)
        for (size_t i = 0; i < expected.loads.size(); ++i)
          CHECK(at::equal(found.loads[i], expected.loads[i]));
    }
}

TEST_CASE("GPU: bf16 steps are near fp32's", "[gpu]") {
  const Trained expected = train(at::kFloat, at::kCPU), found = train(at::kBFloat16, at::kCUDA);
  for (size_t i = 0; i < expected.losses.size(); ++i)
    CHECK(found.losses[i] == Approx(expected.losses[i]).epsilon(3e-2));
}

TEST_CASE("GPU: a forward and backward pass of a dense model waits for nothing", "[gpu]") {
  auto config = tiny_model();
  config.n_routed_experts = 0;
  config.num_nextn_predict_layers = 0;
  auto mesh = distributed::make_local_mesh();
  mesh.device = at::kCUDA;
  moe::Transformer model(config, mesh.ep, 7, at::kFloat, at::kCUDA);
  const std::vector<core::Batch> batches{random_rows(1, 4, 16, config.vocab_size)};
  const auto loss = moe::pretrain_loss(batches, config, {}, {}, mesh);
  loss(model, batches[0]).total.backward();  // handles and workspaces are made here
  const NoWaiting guard;
  CHECK_NOTHROW(loss(model, batches[0]).total.backward());
}

TEST_CASE("GPU: completions are those of the CPU", "[gpu]") {
  const auto mesh = distributed::make_local_mesh();
  moe::Transformer here(policy_model(), mesh.ep, 3, at::kDouble);
  moe::Transformer there(policy_model(), mesh.ep, 3, at::kDouble, at::kCUDA);
  const DrawnSequences expected(here, mesh.ep), found(there, mesh.ep);
  for (size_t g = 0; g < expected.groups.size(); ++g)
    for (size_t i = 0; i < expected.groups[g].size(); ++i)
      CHECK(found.groups[g][i].tokens == expected.groups[g][i].tokens);
}
