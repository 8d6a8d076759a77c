// fp32 products of the model's shapes: kernels/cpu/gemm against at::mm, GFLOP/s. The two alternate
// in short runs, and the median of the runs' times counts, so that other work on the machine meets
// both.
//   build/bench/gemm [rounds = 9]
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "core/nn/linear.h"
#include "kernels/cpu/gemm.h"

namespace {

using cohort::kernels::gemm;
using cohort::kernels::gemm_many;
using cohort::kernels::GemmForm;
using cohort::kernels::GemmProduct;
using Work = std::function<void()>;

int rounds = 15;

double seconds(const Work& work, int repeats) {
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < repeats; ++i) work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() / repeats;
}

void compare(const std::string& name, double flops, const Work& ours, const Work& peer) {
  ours(), peer();  // warm
  const int repeats = std::clamp(static_cast<int>(1e-3 * 2e11 / flops), 1, 200);
  double our_best = seconds(ours, repeats), peer_best = seconds(peer, repeats);
  for (int i = 1; i < rounds; ++i) {
    our_best = std::min(our_best, seconds(ours, repeats));
    peer_best = std::min(peer_best, seconds(peer, repeats));
  }
  const double own = flops / our_best / 1e9, other = flops / peer_best / 1e9;
  fmt::print(
      R"({{"name":"{}","ours":{:.1f},"peer":{:.1f},"ratio":{:.2f},"unit":"GFLOP/s","device":"cpu, {} threads"}})"
      "\n",
      name,
      own,
      other,
      own / other,
      at::get_num_threads());
}

/// The three products of a linear layer: tokens x inputs -> tokens x outputs.
void dense(int64_t tokens, int64_t outputs, int64_t inputs) {
  const auto x = at::randn({tokens, inputs}), w = at::randn({outputs, inputs}),
             d_y = at::randn({tokens, outputs});
  auto y = at::empty({tokens, outputs}), d_x = at::empty({tokens, inputs}),
       d_w = at::empty({outputs, inputs});
  const auto f = [](const at::Tensor& t) { return t.data_ptr<float>(); };
  const double flops = 2.0 * tokens * outputs * inputs;
  const std::string shape = fmt::format("{}x{}x{}", tokens, outputs, inputs);
  const GemmProduct forward{
      GemmForm::kNT, tokens, outputs, inputs, f(x), inputs, f(w), inputs, f(y), outputs};
  const GemmProduct to_x{
      GemmForm::kNN, tokens, inputs, outputs, f(d_y), outputs, f(w), inputs, f(d_x), inputs};
  const GemmProduct to_w{
      GemmForm::kTN, outputs, inputs, tokens, f(d_y), outputs, f(x), inputs, f(d_w), inputs};
  compare(
      "gemm y=xW' " + shape, flops, [&] { gemm(forward); }, [&] { at::mm_out(y, x, w.t()); });
  if (tokens < 64) return;  // decoding has no backward
  compare(
      "gemm dx=dyW " + shape, flops, [&] { gemm(to_x); }, [&] { at::mm_out(d_x, d_y, w); });
  compare(
      "gemm dW=dy'x " + shape, flops, [&] { gemm(to_w); }, [&] { at::mm_out(d_w, d_y.t(), x); });
}

/// Experts of uneven load against at::_grouped_mm: forward through grouped_linear.
void experts(int64_t groups, int64_t rows, int64_t outputs, int64_t inputs) {
  const auto x = at::randn({rows, inputs}), w = at::randn({groups, outputs, inputs});
  std::vector<int64_t> counts;
  std::vector<int32_t> ends;
  for (int64_t g = 0, end = 0; g < groups; ++g) {
    const int64_t count =
        g + 1 == groups ? rows - end : rows / groups + (g % 2 ? 1 : -1) * rows / groups / 3;
    end += count;
    counts.push_back(count);
    ends.push_back(static_cast<int32_t>(end));
  }
  const auto offsets = at::tensor(ends, at::kInt), w_t = w.transpose(1, 2);
  at::Tensor out;
  compare(
      fmt::format("experts {} of {}x{}x{}", groups, rows, outputs, inputs),
      2.0 * rows * outputs * inputs,
      [&] { out = cohort::core::grouped_linear(x, w, counts); },
      [&] { out = at::_grouped_mm(x, w_t, offsets); });
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1) rounds = std::max(1, std::atoi(argv[1]));
  const int cores = static_cast<int>(std::thread::hardware_concurrency());
  for (const int threads : {1, 2}) {
    if (threads > cores) break;
    at::set_num_threads(threads);
    for (const int64_t tokens : {1, 8, 32}) dense(tokens, 256, 256), dense(tokens, 1408, 256);
    dense(256, 352, 256);
    for (const int64_t outputs : {64, 176, 256, 352, 1408, 4096}) dense(2048, outputs, 256);
    dense(2048, 256, 704);
    experts(16, 4096, 352, 256);
    experts(16, 4096, 256, 176);
    experts(64, 512, 352, 256);
  }
}
