// The attention kernels of Hopper (wgmma, TMA) executed on the host against softmax in double.
#include <algorithm>

#include "tests/catch.h"
#include "tests/kernels/device_attention.h"

using namespace cohort::tests;
using namespace cohort::tests::emulated;

namespace {
const auto& forward = hopper_forward;

bool right(const AttentionCase& c, const AttentionReference& want) {
  const auto is = run_forward(forward, c);
  return farthest(is.out, want.out) < kBf16Tolerance && farthest(is.lse, want.lse) < kLseTolerance;
}

BackwardResult gradients(const AttentionCase& c, const ForwardResult& forward_result) {
  return run_backward(hopper_backward, c, forward_result);
}
Bytes bytes_of_gradients(const BackwardResult& is) { return bytes_of(is.d_q, is.d_k, is.d_v); }

/// Follows the forward kernel, in every order, and compares.
void check_gradients(const AttentionCase& c) {
  const AttentionReference want(c);
  const auto forward_result = run_forward(forward, c);
  BackwardResult is;
  check_every_order([&] {
    is = gradients(c, forward_result);
    return bytes_of_gradients(is);
  });
  CHECK(farthest(is.d_q, want.d_q) < kGradientTolerance);
  CHECK(farthest(is.d_k, want.d_k) < kGradientTolerance);
  CHECK(farthest(is.d_v, want.d_v) < kGradientTolerance);
}

struct Size {
  int64_t heads, kv_heads, qk, v;
};
}  // namespace

TEST_CASE("Hopper's attention is softmax over the run's earlier keys, at every tail",
          "[kernels-device_attention_hopper]") {
  const std::vector<std::vector<int64_t>> layouts = {
      {1}, {63}, {64}, {65}, {127}, {128}, {129}, {300}, {5, 200, 1, 0, 128, 16, 3}};
  for (const Size size : {Size{2, 1, 64, 64}, Size{1, 1, 128, 128}, Size{1, 1, 192, 128}})
    for (const auto& lengths : layouts) {
      const AttentionCase c(lengths, size.heads, size.kv_heads, size.qk, size.v);
      const AttentionReference want(c);
      INFO(size.qk << "/" << size.v << ", first run " << lengths[0]);
      ++cohort::tests::combinations;
      for (const auto& schedule : kSchedules) {
        const host::UseSchedule use(schedule);
        CHECK(right(c, want));
      }
    }
}

TEST_CASE("Heads that share keys go through Hopper's attention",
          "[kernels-device_attention_hopper]") {
  const AttentionCase c({140, 30}, 6, 3, 64, 64);
  ++cohort::tests::combinations;
  CHECK(right(c, AttentionReference(c)));
}

TEST_CASE("A query's bits of Hopper's attention depend on its run up to itself alone",
          "[kernels-device_attention_hopper]") {
  const AttentionCase whole({20, 230}, 1, 1, 64, 64);
  AttentionCase part({170}, 1, 1, 64, 64);
  const auto first = [&](const std::vector<bf16>& x) {
    return std::vector<bf16>(x.begin() + 20 * 64, x.begin() + 190 * 64);
  };
  part.q = first(whole.q), part.k = first(whole.k), part.v = first(whole.v);
  CHECK(bytes_of(run_forward(forward, part).out) ==
        bytes_of(first(run_forward(forward, whole).out)));
}

TEST_CASE("Scores of any size leave Hopper's attention finite",
          "[kernels-device_attention_hopper]") {
  AttentionCase c({140}, 1, 1, 64, 64);
  c.problem.scale = 300;
  const auto is = run_forward(forward, c);
  CHECK(farthest(is.out, AttentionReference(c).out) < kBf16Tolerance);
}

TEST_CASE("Sizes without an attention kernel of Hopper are refused",
          "[kernels-device_attention_hopper]") {
  const AttentionCase c({4}, 2, 1, 48, 32);
  CHECK_THROWS_WITH(run_forward(forward, c), Catch::Matchers::Contains("heads of 48 and 32"));
}

TEST_CASE("Each barrier, wait and lane of Hopper's attention is needed: its fault is caught",
          "[kernels-device_attention_hopper]") {
  std::vector<std::vector<std::string>> missed;
  // Several tiles a block, several rounds of each ring, and a group that passes its tiles by.
  for (const std::vector<int64_t>& lengths : std::vector<std::vector<int64_t>>{{420, 30}, {150}}) {
    const AttentionCase c(lengths, 4, 2, 64, 64);
    REQUIRE(right(c, AttentionReference(c)));
    missed.push_back(faults_not_caught(
        [&] {
          const auto is = run_forward(forward, c);
          return bytes_of(is.out, is.lse);
        },
        40));
  }
  for (const auto& site : missed[0])
    CHECK(std::find(missed[1].begin(), missed[1].end(), site) == missed[1].end());
}

TEST_CASE("Copies may end in any order under Hopper's kernels",
          "[kernels-device_attention_hopper]") {
  // One group has no queries in the second tile, and the blocks go on to other heads.
  for (const int64_t length : {129, 150}) {
    const AttentionCase c({length}, 4, 2, 64, 64);
    const auto forward_result = run_forward(forward, c);
    const Bytes first = bytes_of(forward_result.out, forward_result.lse),
                backward = bytes_of_gradients(gradients(c, forward_result));
    for (uint64_t seed = 0; seed < 40; ++seed) {
      const host::UseSchedule use({host::Order::kRandom, seed});
      const auto again = run_forward(forward, c);
      INFO("length " << length << ", seed " << seed);
      CHECK(bytes_of(again.out, again.lse) == first);
      if (seed < 4) CHECK(bytes_of_gradients(gradients(c, forward_result)) == backward);
    }
  }
}

TEST_CASE("Hopper's gradients of attention follow the definition, at every tail",
          "[kernels-device_attention_hopper]") {
  const std::vector<std::vector<int64_t>> layouts = {
      {1}, {63}, {64}, {65}, {127}, {129}, {260}, {5, 130, 1, 0, 64, 16, 3}};
  for (const Size size : {Size{2, 1, 64, 64}, Size{1, 1, 128, 128}, Size{1, 1, 192, 128}})
    for (const auto& lengths : layouts) {
      INFO(size.qk << "/" << size.v << ", first run " << lengths[0]);
      check_gradients(AttentionCase(lengths, size.heads, size.kv_heads, size.qk, size.v));
    }
}

TEST_CASE("A run's gradients have the same bits whatever else is in Hopper's batch",
          "[kernels-device_attention_hopper]") {
  const AttentionCase whole({20, 150, 7}, 2, 1, 64, 64);
  AttentionCase part({150}, 2, 1, 64, 64);
  const auto run = [](const std::vector<bf16>& x, int64_t row) {
    return std::vector<bf16>(x.begin() + 20 * row, x.begin() + 170 * row);
  };
  part.q = run(whole.q, 128), part.k = run(whole.k, 64), part.v = run(whole.v, 64);
  part.d_out = run(whole.d_out, 128);
  const auto all = gradients(whole, exact_forward(AttentionReference(whole)));
  const auto one = gradients(part, exact_forward(AttentionReference(part)));
  CHECK(bytes_of(one.d_q) == bytes_of(run(all.d_q, 128)));
  CHECK(bytes_of(one.d_k) == bytes_of(run(all.d_k, 64)));
  CHECK(bytes_of(one.d_v) == bytes_of(run(all.d_v, 64)));
}

TEST_CASE("Each barrier, wait and lane of Hopper's backward kernels is needed: its fault is caught",
          "[kernels-device_attention_hopper]") {
  const AttentionCase c({290, 30}, 2, 1, 64, 64);
  const auto forward_result = run_forward(forward, c);
  CHECK(faults_not_caught([&] { return bytes_of_gradients(gradients(c, forward_result)); }) ==
        std::vector<std::string>{});
}
