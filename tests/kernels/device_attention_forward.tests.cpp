// The forward attention kernel executed on the host against softmax in double.
#include "tests/kernels/device_attention.h"

#include "tests/catch.h"

using namespace cohort::tests;
using namespace cohort::tests::emulated;

namespace {
const auto& forward = portable_forward;

bool right(const AttentionCase& c, const AttentionReference& want) {
  const auto is = run_forward(forward, c);
  return farthest(is.out, want.out) < kBf16Tolerance && farthest(is.lse, want.lse) < kLseTolerance;
}
}  // namespace

TEST_CASE("Emulated attention is softmax over the run's earlier keys, at every tail",
          "[kernels-device_attention]") {
  const std::vector<std::vector<int64_t>> layouts = {
      {1}, {15}, {16}, {17}, {63}, {64}, {65}, {130}, {5, 64, 1, 0, 70, 16, 3}};
  struct Size {
    int64_t heads, kv_heads, qk, v;
  };
  for (const Size size : {Size{2, 1, 16, 16}, Size{3, 3, 32, 32}, Size{2, 1, 48, 32}})
    for (const auto& lengths : layouts) {
      const AttentionCase c(lengths, size.heads, size.kv_heads, size.qk, size.v);
      const AttentionReference want(c);
      INFO(size.qk << "/" << size.v << ", first run " << lengths[0]);
      ++cohort::tests::combinations;
      for (const auto& schedule : kSchedules) {
        const host::UseSchedule use(schedule);
        const auto is = run_forward(forward, c);
        CHECK(farthest(is.out, want.out) < kBf16Tolerance);
        CHECK(farthest(is.lse, want.lse) < kLseTolerance);
      }
    }
}

TEST_CASE("Emulated attention at the head sizes of models", "[kernels-device_attention]") {
  struct Size {
    int64_t heads, kv_heads, qk, v;
  };
  for (const Size size : {Size{4, 2, 64, 64}, Size{2, 1, 128, 128}, Size{1, 1, 192, 128}}) {
    const AttentionCase c({65, 130, 1}, size.heads, size.kv_heads, size.qk, size.v);
    const AttentionReference want(c);
    INFO(size.qk << "/" << size.v);
    ++cohort::tests::combinations;
    for (const auto& schedule : kSchedules) {
      const host::UseSchedule use(schedule);
      CHECK(right(c, want));
    }
  }
}

TEST_CASE("A query's bits depend on its run up to itself alone", "[kernels-device_attention]") {
  const AttentionCase whole({20, 130}, 1, 1, 32, 32);
  AttentionCase part({70}, 1, 1, 32, 32);
  const auto first = [&](const std::vector<bf16>& x) {
    return std::vector<bf16>(x.begin() + 20 * 32, x.begin() + 90 * 32);
  };
  part.q = first(whole.q), part.k = first(whole.k), part.v = first(whole.v);
  CHECK(bytes_of(run_forward(forward, part).out) ==
        bytes_of(first(run_forward(forward, whole).out)));
}

TEST_CASE("Scores of any size leave emulated attention finite", "[kernels-device_attention]") {
  AttentionCase c({70}, 1, 1, 16, 16);
  c.problem.scale = 300;
  const auto is = run_forward(forward, c);
  CHECK(farthest(is.out, AttentionReference(c).out) < kBf16Tolerance);
}

TEST_CASE("Sizes without an attention kernel are refused", "[kernels-device_attention]") {
  AttentionCase c({4}, 3, 1, 16, 16);
  c.problem.qk_dim = 24;
  CHECK_THROWS_WITH(run_forward(forward, c), Catch::Matchers::Contains("heads of 24 and 16"));
  c.problem.qk_dim = 16, c.problem.kv_heads = 2;
  CHECK_THROWS_WITH(run_forward(forward, c), Catch::Matchers::Contains("3 heads over 2"));
}

TEST_CASE("Each barrier, wait and lane of the attention kernel is needed: its fault is caught",
          "[kernels-device_attention]") {
  // Rows of 32: with 16, each warp loads the very queries it reads and needs no barrier for them.
  const AttentionCase c({150}, 1, 1, 32, 32);
  REQUIRE(right(c, AttentionReference(c)));
  CHECK(faults_not_caught([&] {
          const auto is = run_forward(forward, c);
          return bytes_of(is.out, is.lse);
        }) == std::vector<std::string>{});
}
