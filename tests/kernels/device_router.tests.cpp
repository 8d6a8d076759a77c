// The device router, run on the host, against its CPU twin.
#include <limits>
#include <vector>

#include "kernels/cpu/router.h"
#include "kernels/cuda/router.cuh"
#include "tests/kernels/device_runs.h"

using namespace cohort::tests;
namespace cpu = cohort::kernels;
namespace device = cohort::kernels::emulated;
using cpu::bf16;

namespace {

struct Routed {
  std::vector<float> scores, gate;
  std::vector<int64_t> expert;
  Routed(int64_t T, int64_t E, int64_t K) : scores(T * E, -1), gate(T * K, -1), expert(T * K, -1) {}
  Bytes bytes() const { return bytes_of(scores, gate, expert); }
};

cpu::Scoring cpu_scoring(const device::RouterShape& s) {
  return s.scoring == device::Scoring::kSigmoid ? cpu::Scoring::kSigmoid : cpu::Scoring::kSoftmax;
}

std::vector<float> widened(const std::vector<float>& x) { return x; }
std::vector<float> widened(const std::vector<bf16>& x) {
  std::vector<float> out;
  for (const bf16 v : x) out.push_back(cpu::to_sum(v));
  return out;
}

template <class Logit>
Routed on_device_routed(const device::RouterShape& s,
                        const std::vector<Logit>& logits,
                        const float* bias) {
  Routed r(s.T, s.E, s.K);
  device::route(
      s, on_device(logits.data()), bias, r.scores.data(), r.expert.data(), r.gate.data(), nullptr);
  return r;
}

template <class Logit>
void compare_route(const device::RouterShape& s, const std::vector<Logit>& logits, bool biased) {
  CAPTURE(s.T, s.E, s.K, s.num_groups, s.groups_kept, static_cast<int>(s.scoring), s.normalise);
  CAPTURE(sizeof(Logit), biased);
  const auto bias = normal_values<float>(s.E, 9, 0.2);
  const float* added = biased ? bias.data() : nullptr;
  const auto ours = on_device_routed(s, logits, added);
  check_every_order([&] { return on_device_routed(s, logits, added).bytes(); });

  const cpu::TopKShape shape{s.T, s.E, s.K, s.num_groups, s.groups_kept};
  Routed twin(s.T, s.E, s.K);
  const auto wide = widened(logits);
  cpu::router_scores(wide.data(), s.T, s.E, cpu_scoring(s), twin.scores.data());
  if (s.scoring == device::Scoring::kSigmoid)
    CHECK(bytes_of(ours.scores) == bytes_of(twin.scores));
  else  // whose sum is added in another order
    CHECK(worst_error(ours.scores, twin.scores) < 1e-6);
  // From the same scores: the same experts and, bit for bit, the same gates.
  cpu::choose_experts(shape, ours.scores.data(), added, twin.expert.data());
  CHECK(ours.expert == twin.expert);
  cpu::gate_values(
      shape, ours.scores.data(), twin.expert.data(), s.normalise, s.scale, twin.gate.data());
  CHECK(bytes_of(ours.gate) == bytes_of(twin.gate));
}

template <class Logit>
void compare_route_backward(const device::RouterShape& s, bool with_scores) {
  CAPTURE(s.T, s.E, s.K, static_cast<int>(s.scoring), s.normalise, with_scores, sizeof(Logit));
  const auto r = on_device_routed(s, normal_values<float>(s.T * s.E, 3), nullptr);
  const auto d_gate = normal_values<float>(s.T * s.K, 4);
  const auto d_scores = normal_values<float>(s.T * s.E, 5);
  std::vector<Logit> d_logits(s.T * s.E);
  const auto run = [&] {
    device::route_backward(s,
                           r.scores.data(),
                           r.expert.data(),
                           d_gate.data(),
                           with_scores ? d_scores.data() : nullptr,
                           on_device(d_logits.data()),
                           nullptr);
    return bytes_of(d_logits);
  };
  check_every_order(run);
  const cpu::TopKShape shape{s.T, s.E, s.K};
  const std::vector<double> wide(r.scores.begin(), r.scores.end());
  const std::vector<double> wide_d(d_gate.begin(), d_gate.end());
  std::vector<double> exact(s.T * s.E);
  cpu::gate_values_backward<double>(shape,
                                    wide.data(),
                                    r.expert.data(),
                                    wide_d.data(),
                                    s.normalise,
                                    s.scale,
                                    cpu_scoring(s),
                                    exact.data());
  for (int64_t t = 0; with_scores && t < s.T; ++t) {
    const double* p = wide.data() + t * s.E;
    const float* d = d_scores.data() + t * s.E;
    double dot = 0;
    for (int64_t e = 0; e < s.E; ++e) dot += p[e] * d[e];
    for (int64_t e = 0; e < s.E; ++e)
      exact[t * s.E + e] +=
          s.scoring == device::Scoring::kSigmoid ? d[e] * p[e] * (1 - p[e]) : p[e] * (d[e] - dot);
  }
  CHECK(worst_error(d_logits, exact) < (sizeof(Logit) == 2 ? 1e-2 : 2e-6));
}

device::RouterShape shape_of(int64_t T, int64_t E, int64_t K, int64_t groups, int64_t kept) {
  device::RouterShape s{T, E, K, groups, kept};
  s.scale = 2.5f;
  return s;
}

}  // namespace

TEST_CASE("The device router chooses and weighs as the CPU's", "[kernels-device]") {
  std::vector<device::RouterShape> shapes = {shape_of(1, 1, 1, 1, 1),
                                             shape_of(5, 2, 1, 1, 1),
                                             shape_of(4, 8, 8, 1, 1),
                                             shape_of(3, 31, 6, 1, 1),
                                             shape_of(9, 32, 4, 8, 3),
                                             shape_of(6, 33, 5, 3, 2),
                                             shape_of(7, 64, 8, 64 / 2, 9),
                                             shape_of(5, 100, 7, 4, 2),
                                             shape_of(5, 256, 8, 8, 4),
                                             shape_of(2, 384, 32, 1, 1),
                                             shape_of(3, 1000, 16, 8, 8),
                                             shape_of(3, 1024, 9, 32, 1)};
  for (auto s : shapes)
    for (const auto scoring : {device::Scoring::kSigmoid, device::Scoring::kSoftmax})
      for (const bool normalise : {true, false}) {
        s.scoring = scoring;
        s.normalise = normalise;
        compare_route(s, normal_values<float>(s.T * s.E, 1, 2), normalise);
        compare_route(s, normal_values<bf16>(s.T * s.E, 2, 2), !normalise);
      }
}

TEST_CASE("The device router breaks ties to the lower index and puts NaN last",
          "[kernels-device]") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const int64_t kept : {2, 4}) {
    const auto s = shape_of(6, 64, 5, 4, kept);
    std::vector<float> logits(s.T * s.E, 0.5f);
    for (int64_t e = 0; e < 64; ++e) {
      logits[64 + e] = static_cast<float>(e % 3);
      logits[2 * 64 + e] = e % 2 ? nan : 1.0f;
      logits[3 * 64 + e] = nan;
      logits[4 * 64 + e] = e == 63 ? 1.0f : nan;
      logits[5 * 64 + e] = e % 2 ? -0.0f : 0.0f;
    }
    const auto ours = on_device_routed(s, logits, nullptr);
    std::vector<int64_t> expert(s.T * s.K);
    cpu::choose_experts<float>(
        {s.T, s.E, s.K, 4, kept}, ours.scores.data(), nullptr, expert.data());
    CHECK(ours.expert == expert);
  }
}

TEST_CASE("The device router's backward follows the definition", "[kernels-device]") {
  for (const int64_t E : {1, 8, 33, 64, 256, 1000})
    for (const auto scoring : {device::Scoring::kSigmoid, device::Scoring::kSoftmax})
      for (const bool flag : {true, false}) {
        auto s = shape_of(6, E, std::min<int64_t>(E, 8), 1, 1);
        s.scoring = scoring;
        s.normalise = flag;
        compare_route_backward<float>(s, flag);
        compare_route_backward<bf16>(s, !flag);
      }
}

TEST_CASE("Every barrier and every mask of the router kernels is needed: its fault is caught",
          "[kernels-device]") {
  for (const auto scoring : {device::Scoring::kSigmoid, device::Scoring::kSoftmax}) {
    auto s = shape_of(6, 128, 16, 4, 2);  // chosen experts in the last strip too
    s.scoring = scoring;
    const auto logits = normal_values<float>(s.T * s.E, 1, 2);
    CHECK(faults_not_caught([&] { return on_device_routed(s, logits, nullptr).bytes(); }) ==
          std::vector<std::string>{});
    const auto r = on_device_routed(s, logits, nullptr);
    const auto d_gate = normal_values<float>(s.T * s.K, 4);
    CHECK(faults_not_caught([&] {
            std::vector<float> d_logits(s.T * s.E);
            device::route_backward(s,
                                   r.scores.data(),
                                   r.expert.data(),
                                   d_gate.data(),
                                   nullptr,
                                   d_logits.data(),
                                   nullptr);
            return bytes_of(d_logits);
          }) == std::vector<std::string>{});
  }
}
