// The model's operations on a GPU beside LibTorch's for the same: microseconds of both and their
// ratio (theirs / ours, above 1: ours is faster), one JSON line an operation and shape. Twenty
// calls a time, ours and theirs in turn, seven rounds, medians. Without a GPU it says so and runs
// nothing.
//   build-cuda/bench/device_peers
#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/cuda.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "core/base/device_kernels.h"
#include "core/base/error.h"
#include "core/nn/attention.h"
#include "moe/device/dispatch.h"
#include "moe/router.h"

namespace {

using namespace cohort;
using Work = std::function<void()>;

constexpr int kCalls = 20, kRounds = 7;

double microseconds(const Work& work) {
  torch::cuda::synchronize();
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < kCalls; ++i) work();
  torch::cuda::synchronize();
  return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start)
             .count() /
         kCalls;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void compare(const std::string& name, const Work& ours, const Work& theirs) {
  ours();
  theirs();
  std::vector<double> our_times, their_times, ratios;
  for (int round = 0; round < kRounds; ++round) {
    our_times.push_back(microseconds(ours));
    their_times.push_back(microseconds(theirs));
    ratios.push_back(their_times.back() / our_times.back());
  }
  std::printf("{\"name\":\"%s\",\"ours\":%.1f,\"peer\":%.1f,\"ratio\":%.3f,\"unit\":\"us\"}\n",
              name.c_str(),
              median(our_times),
              median(their_times),
              median(ratios));
  std::fflush(stdout);
}

at::Tensor values(at::IntArrayRef shape, at::ScalarType dtype = at::kBFloat16) {
  return at::randn(shape, at::TensorOptions().dtype(dtype).device(at::kCUDA));
}

/// One document a row, so that LibTorch has its fastest form.
void attention(
    int64_t rows, int64_t length, int64_t heads, int64_t kv_heads, int64_t qk_dim, int64_t v_dim) {
  const std::string shape = fmt::format(
      "{}x{} tokens, {} heads over {}, {}/{}", rows, length, heads, kv_heads, qk_dim, v_dim);
  const auto layout = core::attention_layout(rows, length, {});
  const double scale = 1 / std::sqrt(static_cast<double>(qk_dim));
  std::vector<at::Tensor> in{values({rows, length, heads, qk_dim}),
                             values({rows, length, kv_heads, qk_dim}),
                             values({rows, length, kv_heads, v_dim})};
  const auto d_out = values({rows, length, heads, v_dim});
  const auto ours = [&] { return core::causal_attention(in[0], in[1], in[2], layout, scale); };
  const auto theirs = [&] {
    return at::scaled_dot_product_attention(in[0].transpose(1, 2),
                                            in[1].transpose(1, 2),
                                            in[2].transpose(1, 2),
                                            {},
                                            0.0,
                                            true,
                                            scale,
                                            heads != kv_heads)
        .transpose(1, 2);
  };
  const auto with_gradient = [&in, &d_out](const auto& f) {
    return [&in, &d_out, f] { torch::autograd::grad({f()}, in, {d_out}); };
  };
  for (const bool by_wgmma : {false, true}) {
    if (by_wgmma && !core::device_kernels(in[0])->attends_by_wgmma(qk_dim, v_dim)) continue;
    core::set_wgmma_attention(by_wgmma);
    const std::string name = by_wgmma ? "attention by wgmma, " : "attention, ";
    for (auto& x : in) x.set_requires_grad(false);
    compare(
        name + "forward, " + shape, [&] { ours(); }, [&] { theirs(); });
    for (auto& x : in) x.set_requires_grad(true);
    compare(name + "forward and backward, " + shape, with_gradient(ours), with_gradient(theirs));
  }
  core::set_wgmma_attention(false);
}

void dispatch(int64_t T, int64_t D, int64_t E, int64_t K) {
  const std::string shape = fmt::format("{} tokens x {}, {} of {} experts", T, D, K, E);
  const c10::NoGradGuard no_grad;
  const auto expert = std::get<1>(values({T, E}, at::kFloat).topk(K, 1));
  const auto gate = values({T, K}, at::kFloat), x = values({T, D});
  const auto sorted = moe::device::sort_pairs(expert, E);
  const auto pairs = moe::device::gather(x, sorted.pair_at, K);
  compare(
      "sort of pairs, " + shape,
      [&] { moe::device::sort_pairs(expert, E); },
      [&] {
        const auto flat = expert.flatten();
        const auto order = std::get<1>(flat.sort(true, 0, false));
        at::empty_like(flat).scatter_(0, order, at::arange(flat.numel(), flat.options()));
        at::zeros({E}, flat.options()).scatter_add_(0, flat, at::ones_like(flat));
      });
  compare(
      "gather, " + shape,
      [&] { moe::device::gather(x, sorted.pair_at, K); },
      [&] { x.index_select(0, sorted.pair_at.floor_divide(K)); });
  compare(
      "combine, " + shape,
      [&] { moe::device::combine(pairs, gate, sorted.place_of, T, K); },
      [&] {
        (pairs.index_select(0, sorted.place_of).view({T, K, D}).to(at::kFloat) * gate.unsqueeze(-1))
            .sum(1)
            .to(at::kBFloat16);
      });
}

void routing(int64_t T) {
  core::ModelConfig config;
  config.n_routed_experts = 256;
  config.num_experts_per_tok = 8;
  config.n_group = 8;
  config.topk_group = 4;
  const c10::NoGradGuard no_grad;
  const auto logits = values({T, 256}, at::kFloat), bias = values({256}, at::kFloat);
  compare(
      fmt::format("routing, {} tokens, 8 of 256 experts in 4 of 8 groups", T),
      [&] { moe::route(logits, bias, 0, config); },
      [&] {
        const auto scores = logits.sigmoid(), choice = scores + bias;
        const auto grouped = choice.view({T, 8, 32});
        const auto best = std::get<1>(std::get<0>(grouped.topk(2, -1)).sum(-1).topk(4, -1));
        const auto kept = at::zeros({T, 8}, logits.options()).scatter_(1, best, 1.0).unsqueeze(-1);
        const auto expert =
            std::get<1>(grouped.masked_fill(kept == 0, 0.0).view({T, 256}).topk(8, -1));
        const auto gate = scores.gather(1, expert);
        (gate / gate.sum(-1, true)) * 2.5;
      });
}

}  // namespace

int main() {
  if (!torch::cuda::is_available()) {
    std::fprintf(stderr,
                 "bench/device_peers: there is no GPU that LibTorch can use: nothing was run\n");
    return 0;
  }
  if (!core::device_kernels(values({1}))) {
    std::fprintf(stderr, "bench/device_peers: built without nvcc or COHORT_GPU: nothing was run\n");
    return 0;
  }
  for (const int64_t length : {1024, 4096, 16384})
    attention(16384 / length, length, 128, 128, 192, 128);
  attention(4, 4096, 32, 8, 128, 128);
  attention(4, 4096, 32, 8, 64, 64);
  dispatch(8192, 7168, 256, 8);
  dispatch(32768, 2048, 64, 6);
  routing(32768);
  return 0;
}
