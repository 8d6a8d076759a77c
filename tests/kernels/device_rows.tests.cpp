// The device's norms, activations, rotations, log-probabilities and AdamW, run on the host, against
// their CPU twins (fp64 where those have it).
#include <vector>

#include "kernels/cpu/flat_updates.h"
#include "kernels/cpu/rms_norm.h"
#include "kernels/cpu/rope.h"
#include "kernels/cpu/swiglu.h"
#include "kernels/cpu/token_log_probs.h"
#include "kernels/cuda/elementwise.cuh"
#include "kernels/cuda/rms_norm.cuh"
#include "kernels/cuda/token_log_probs.cuh"
#include "tests/kernels/device_runs.h"

using namespace cohort::tests;
namespace cpu = cohort::kernels;
namespace device = cohort::kernels::emulated;
using cpu::bf16;

namespace {

template <class T>
std::vector<double> exact_of(const std::vector<T>& x) {
  std::vector<double> out;
  for (const T v : x) out.push_back(cpu::to_sum(v));
  return out;
}
template <class T>
constexpr double kBound = sizeof(T) == 2 ? 8e-3 : 3e-6;

const std::vector<int64_t> kWidths = {2, 6, 8, 12, 30, 32, 34, 64, 130, 256, 520};

template <class T>
void compare_rms_norm(int64_t rows, int64_t dim, int64_t gap) {
  CAPTURE(rows, dim, gap, sizeof(T));
  const int64_t stride = dim + gap;
  const auto x = normal_values<T>(rows * stride, 1), weight = normal_values<T>(dim, 2),
             d_y = normal_values<T>(rows * dim, 3);
  std::vector<T> y(rows * dim), d_x(rows * dim), d_weight(dim);
  std::vector<float> r(rows), workspace(device::rms_norm_workspace(rows, dim) / 4 + 1);
  check_every_order([&] {
    device::rms_norm_forward(on_device(x.data()),
                             stride,
                             on_device(weight.data()),
                             rows,
                             dim,
                             1e-5f,
                             on_device(y.data()),
                             r.data(),
                             nullptr);
    device::rms_norm_backward(on_device(x.data()),
                              stride,
                              on_device(weight.data()),
                              r.data(),
                              on_device(d_y.data()),
                              rows,
                              dim,
                              on_device(d_x.data()),
                              on_device(d_weight.data()),
                              workspace.data(),
                              nullptr);
    return bytes_of(y, r, d_x, d_weight);
  });
  const auto x64 = exact_of(x), w64 = exact_of(weight), dy64 = exact_of(d_y);
  std::vector<double> y64(rows * dim), r64(rows), dx64(rows * dim), dw64(dim);
  cpu::rms_norm_forward<double>(
      x64.data(), stride, w64.data(), rows, dim, 1e-5, y64.data(), r64.data());
  cpu::rms_norm_backward<double>(
      x64.data(), stride, w64.data(), r64.data(), dy64.data(), rows, dim, dx64.data(), dw64.data());
  CHECK(worst_error(y, y64) < kBound<T>);
  CHECK(worst_error(r, r64) < 1e-6);
  CHECK(worst_error(d_x, dx64) < kBound<T>);
  CHECK(worst_error(d_weight, dw64) < 3 * kBound<T>);
}

template <class T>
void compare_swiglu(int64_t rows, int64_t width) {
  CAPTURE(rows, width, sizeof(T));
  const auto gate_up = normal_values<T>(rows * 2 * width, 1, 3),
             d_y = normal_values<T>(rows * width, 2);
  std::vector<T> y(rows * width), d_gate_up(rows * 2 * width);
  check_every_order([&] {
    device::swiglu_forward(on_device(gate_up.data()), rows, width, on_device(y.data()), nullptr);
    device::swiglu_backward(on_device(gate_up.data()),
                            on_device(d_y.data()),
                            rows,
                            width,
                            on_device(d_gate_up.data()),
                            nullptr);
    return bytes_of(y, d_gate_up);
  });
  const auto in64 = exact_of(gate_up), dy64 = exact_of(d_y);
  std::vector<double> y64(rows * width), d64(rows * 2 * width);
  cpu::swiglu_forward<double>(in64.data(), rows, width, y64.data());
  cpu::swiglu_backward<double>(in64.data(), dy64.data(), rows, width, d64.data());
  CHECK(worst_error(y, y64) < kBound<T>);
  CHECK(worst_error(d_gate_up, d64) < kBound<T>);
}

template <class T>
void compare_rope(int64_t heads, int64_t dim, bool interleave, int sign) {
  CAPTURE(heads, dim, interleave, sign, sizeof(T));
  const int64_t batch = 2, length = 5, row = heads * dim + 3;
  const auto x = normal_values<T>(batch * length * row, 1);
  const auto cos = normal_values<float>(length * dim / 2, 2),
             sin = normal_values<float>(length * dim / 2, 3);
  const device::RopeShape shape{
      {length * row, row, dim}, batch, length, heads, dim, interleave, sign};
  std::vector<T> y(batch * length * heads * dim), twin(y.size());
  check_every_order([&] {
    device::rope(shape, on_device(x.data()), cos.data(), sin.data(), on_device(y.data()), nullptr);
    return bytes_of(y);
  });
  const int64_t strides[3] = {length * row, row, dim};
  cpu::rope<T>(x.data(),
               strides,
               cos.data(),
               sin.data(),
               batch,
               length,
               heads,
               dim,
               interleave,
               sign,
               twin.data());
  CHECK(worst_error(y, twin) < kBound<T>);
}

struct LogProbs {
  std::vector<float> log_prob, entropy;
};

/// In tiles of tile_classes, out of and back into the full rows; the gradient replaces the logits.
template <class T>
LogProbs in_tiles(std::vector<T>& logits,
                  const std::vector<int64_t>& target,
                  int64_t classes,
                  int64_t tile_classes,
                  float inverse_temperature,
                  const std::vector<float>& coefficient) {
  const auto rows = static_cast<int64_t>(target.size());
  LogProbs out{std::vector<float>(rows, -9), std::vector<float>(rows, -9)};
  std::vector<device::SoftmaxState> state(rows);
  const auto each_tile = [&](const auto& work) {
    for (int64_t first = 0; first < classes; first += tile_classes) {
      const int64_t n = std::min(tile_classes, classes - first);
      std::vector<T> tile(rows * n);
      for (int64_t i = 0; i < rows; ++i) std::copy_n(&logits[i * classes + first], n, &tile[i * n]);
      work(device::LogitTile<DeviceType<T>>{
          on_device(tile.data()), target.data(), rows, n, first, inverse_temperature});
      for (int64_t i = 0; i < rows; ++i) std::copy_n(&tile[i * n], n, &logits[i * classes + first]);
    }
  };
  each_tile([&](const auto& tile) { device::add_logit_tile(tile, state.data(), nullptr); });
  device::finish_log_probs(state.data(),
                           target.data(),
                           rows,
                           inverse_temperature,
                           out.log_prob.data(),
                           out.entropy.data(),
                           nullptr);
  each_tile([&](const auto& tile) {
    device::logit_tile_gradient(tile, state.data(), coefficient.data(), nullptr);
  });
  return out;
}

template <class T>
void compare_log_probs(int64_t classes, int64_t tile_classes, double temperature) {
  CAPTURE(classes, tile_classes, temperature, sizeof(T));
  const int64_t rows = 4;
  const auto logits = normal_values<T>(rows * classes, 1, 4);
  std::vector<int64_t> target;
  for (int64_t i = 0; i < rows; ++i) target.push_back((i * 131 + classes - 1) % classes);
  const auto coefficient = normal_values<float>(rows, 2);
  const auto inverse = static_cast<float>(1 / temperature);
  std::vector<T> gradient;
  LogProbs ours;
  check_every_order([&] {
    gradient = logits;
    ours = in_tiles(gradient, target, classes, tile_classes, inverse, coefficient);
    return bytes_of(gradient, ours.log_prob, ours.entropy);
  });
  auto exact = exact_of(logits);
  const auto coefficient64 = exact_of(coefficient);
  std::vector<double> log_prob(rows), entropy(rows);
  cpu::token_log_probs<double>(exact.data(),
                               target.data(),
                               rows,
                               classes,
                               static_cast<double>(inverse),
                               coefficient64.data(),
                               log_prob.data(),
                               entropy.data());
  CHECK(worst_error(ours.log_prob, log_prob) < 3e-6);
  CHECK(worst_error(ours.entropy, entropy) < 1e-5);
  CHECK(worst_error(gradient, exact) < kBound<T>);
}

template <class Grad>
void compare_adamw(const std::vector<int64_t>& sizes, float beta1) {
  const device::AdamWStep step{0.99f, 0.5f, beta1, 1 - beta1, 0.95f, 0.05f, 0.7f, 1e-8f, -1e-3f};
  struct State {
    std::vector<float> weight, m, v;
  };
  std::vector<State> ours, twin;
  std::vector<std::vector<Grad>> grad;
  std::vector<std::vector<bf16>> rounded;
  unsigned seed = 1;
  for (const int64_t n : sizes) {
    auto v = normal_values<float>(n, seed + 2);
    for (auto& x : v) x *= x;
    twin.push_back({normal_values<float>(n, seed), normal_values<float>(n, seed + 1), v});
    grad.push_back(normal_values<Grad>(n, seed + 3));
    rounded.emplace_back(n);
    seed += 4;
  }
  check_every_order([&] {
    ours = twin;
    std::vector<device::AdamWTensor<DeviceType<Grad>>> tensors;
    for (size_t i = 0; i < sizes.size(); ++i)
      tensors.push_back({ours[i].weight.data(),
                         on_device(grad[i].data()),
                         ours[i].m.data(),
                         ours[i].v.data(),
                         i % 2 ? on_device(rounded[i].data()) : nullptr,
                         sizes[i]});
    device::adamw(tensors.data(), static_cast<int64_t>(sizes.size()), step, nullptr);
    Bytes all;
    for (const auto& s : ours) {
      const auto one = bytes_of(s.weight, s.m, s.v);
      all.insert(all.end(), one.begin(), one.end());
    }
    return all;
  });
  for (size_t i = 0; i < sizes.size(); ++i) {
    std::vector<float> wide;
    for (const auto g : grad[i]) wide.push_back(cpu::to_sum(g));
    cpu::adamw<float>(twin[i].weight.data(),
                      wide.data(),
                      twin[i].m.data(),
                      twin[i].v.data(),
                      sizes[i],
                      {step.decay,
                       step.grad_scale,
                       step.beta1,
                       step.one_minus_beta1,
                       step.beta2,
                       step.one_minus_beta2,
                       step.bias2_sqrt,
                       step.eps,
                       step.minus_step_size});
    CAPTURE(i, sizes[i], beta1);
    CHECK(bytes_of(ours[i].weight, ours[i].m, ours[i].v) ==
          bytes_of(twin[i].weight, twin[i].m, twin[i].v));
    for (int64_t j = 0; i % 2 && j < sizes[i]; ++j) {
      bf16 expected;
      cpu::from_sum(ours[i].weight[j], expected);
      REQUIRE(rounded[i][j].bits == expected.bits);
    }
  }
}

}  // namespace

TEST_CASE("Device RMSNorm and its gradients follow the definition", "[kernels-device]") {
  for (const int64_t dim : kWidths) {
    compare_rms_norm<float>(dim % 3 ? 3 : 35, dim, 0);
    compare_rms_norm<bf16>(dim % 3 ? 33 : 2, dim, 8);
  }
  compare_rms_norm<float>(2, 2052, 3);
  compare_rms_norm<bf16>(2, 4104, 0);
}

TEST_CASE("Device SwiGLU and its gradients follow the definition", "[kernels-device]") {
  for (const int64_t width : kWidths) {
    compare_swiglu<float>(3, width);
    compare_swiglu<bf16>(4, width);
  }
}

TEST_CASE("Device rotation is the CPU's", "[kernels-device]") {
  for (const int64_t dim : {2, 8, 64, 128})
    for (const bool interleave : {true, false})
      for (const int sign : {1, -1}) {
        compare_rope<float>(3, dim, interleave, sign);
        compare_rope<bf16>(2, dim, interleave, sign);
      }
}

TEST_CASE("Device log-probabilities, entropies and gradients do not depend on tiles",
          "[kernels-device]") {
  for (const int64_t classes : {1, 3, 8, 31, 256, 1000, 2056})
    for (const int64_t tile : {int64_t{300}, classes}) {
      compare_log_probs<float>(classes, tile, 1);
      compare_log_probs<bf16>(classes, tile, 0.7);
    }
}

TEST_CASE("Device log-probabilities: no target, minus infinity, NaN", "[kernels-device]") {
  const float inf = std::numeric_limits<float>::infinity();
  const int64_t classes = 40;
  std::vector<float> logits(4 * classes, 0.0f);
  for (int64_t j = 1; j < classes; ++j) logits[classes + j] = -inf;
  for (int64_t j = 0; j < 20; ++j) logits[2 * classes + j] = -inf;  // the whole first tile
  logits[3 * classes + 7] = NAN;
  const std::vector<int64_t> target = {-1, 0, 39, 1};
  const auto out = in_tiles(logits, target, classes, 20, 1.0f, {1, 1, 1, 1});
  CHECK(out.log_prob[0] == 0);
  CHECK(logits[5] == 0);
  CHECK(out.log_prob[1] == 0);
  CHECK(out.entropy[1] == 0);
  CHECK(out.log_prob[2] == Approx(-std::log(20.0)));
  CHECK(out.entropy[2] == Approx(std::log(20.0)));
  CHECK(logits[2 * classes] == 0);
  CHECK(std::isnan(out.log_prob[3]));
}

TEST_CASE("Device AdamW over many tensors is the CPU's", "[kernels-device]") {
  std::vector<int64_t> sizes = {1, 0, 3, 255, 256, 1023, 1024, 1025, 3000};
  compare_adamw<float>(sizes, 0.9f);
  compare_adamw<bf16>(sizes, 0.4f);
  compare_adamw<float>(std::vector<int64_t>(53, 70), 0.9f);
}

TEST_CASE("Every barrier and every mask of the row kernels is needed: its fault is caught",
          "[kernels-device]") {
  const int64_t rows = 3, dim = 520;
  const auto x = normal_values<float>(rows * dim, 1), weight = normal_values<float>(dim, 2);
  const std::vector<float> r(rows, 1);
  CHECK(faults_not_caught([&] {
          std::vector<float> d_x(rows * dim), y(rows * dim);
          device::rms_norm_backward(x.data(),
                                    dim,
                                    weight.data(),
                                    r.data(),
                                    x.data(),
                                    rows,
                                    dim,
                                    d_x.data(),
                                    static_cast<float*>(nullptr),
                                    nullptr,
                                    nullptr);
          return bytes_of(d_x);
        }) == std::vector<std::string>{});
  CHECK(faults_not_caught([&] {
          auto logits = x;
          const auto out = in_tiles(logits, {1, 2, 3}, dim, 300, 1.0f, {1, 1, 1});
          return bytes_of(logits, out.log_prob, out.entropy);
        }) == std::vector<std::string>{});
}
