// The gradients of attention, executed on the host against those of softmax in double.
#include "tests/kernels/device_attention.h"

using namespace cohort::tests;
using namespace cohort::tests::emulated;

namespace {

Bytes bytes_of_gradients(const BackwardResult& is) { return bytes_of(is.d_q, is.d_k, is.d_v); }

/// Follows the forward kernel, in every order, and compares.
void check_gradients(const AttentionCase& c) {
  const AttentionReference want(c);
  const auto forward = run_forward(portable_forward, c);
  BackwardResult is;
  check_every_order([&] {
    is = run_backward(portable_backward, c, forward);
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

TEST_CASE("Emulated gradients of attention follow the definition, at every tail",
          "[kernels-device_attention]") {
  const std::vector<std::vector<int64_t>> layouts = {
      {1}, {15}, {16}, {17}, {31}, {33}, {63}, {64}, {65}, {130}, {5, 64, 1, 0, 70, 16, 3}};
  for (const Size size : {Size{2, 1, 16, 16}, Size{3, 3, 32, 32}, Size{4, 2, 48, 32}})
    for (const auto& lengths : layouts) {
      INFO(size.qk << "/" << size.v << ", first run " << lengths[0]);
      check_gradients(AttentionCase(lengths, size.heads, size.kv_heads, size.qk, size.v));
    }
}

TEST_CASE("Emulated gradients of attention at the head sizes of models",
          "[kernels-device_attention]") {
  for (const Size size : {Size{4, 2, 64, 64}, Size{2, 1, 128, 128}, Size{1, 1, 192, 128}}) {
    INFO(size.qk << "/" << size.v);
    check_gradients(AttentionCase({65, 130, 1}, size.heads, size.kv_heads, size.qk, size.v));
  }
}

TEST_CASE("A run's gradients have the same bits whatever else is in the batch",
          "[kernels-device_attention]") {
  const AttentionCase whole({20, 130, 7}, 2, 1, 32, 32);
  AttentionCase part({130}, 2, 1, 32, 32);
  const auto run = [](const std::vector<bf16>& x, int64_t row) {
    return std::vector<bf16>(x.begin() + 20 * row, x.begin() + 150 * row);
  };
  part.q = run(whole.q, 64), part.k = run(whole.k, 32), part.v = run(whole.v, 32);
  part.d_out = run(whole.d_out, 64);
  const auto all = run_backward(portable_backward, whole, exact_forward(AttentionReference(whole)));
  const auto one = run_backward(portable_backward, part, exact_forward(AttentionReference(part)));
  CHECK(bytes_of(one.d_q) == bytes_of(run(all.d_q, 64)));
  CHECK(bytes_of(one.d_k) == bytes_of(run(all.d_k, 32)));
  CHECK(bytes_of(one.d_v) == bytes_of(run(all.d_v, 32)));
}

TEST_CASE("Scores of any size leave the gradients of attention finite",
          "[kernels-device_attention]") {
  AttentionCase c({70}, 1, 1, 16, 16);
  c.problem.scale = 300;
  const AttentionReference want(c);
  const auto is = run_backward(portable_backward, c, exact_forward(want));
  CHECK(farthest(is.d_v, want.d_v) < kGradientTolerance);
  CHECK(std::isfinite(farthest(is.d_q, want.d_q)));
  CHECK(std::isfinite(farthest(is.d_k, want.d_k)));
}

TEST_CASE("Sizes without a backward attention kernel are refused", "[kernels-device_attention]") {
  AttentionCase c({4}, 3, 1, 16, 16);
  const auto forward = exact_forward(AttentionReference(c));
  c.problem.v_dim = 24;
  CHECK_THROWS_WITH(run_backward(portable_backward, c, forward),
                    Catch::Matchers::Contains("attention_backward: no kernel for heads of 16"));
}

TEST_CASE(
    "Each barrier, wait and lane of the backward attention kernels is needed: its fault is caught",
    "[kernels-device_attention]") {
  const AttentionCase c({150}, 2, 1, 32, 32);
  const auto forward = exact_forward(AttentionReference(c));
  CHECK(faults_not_caught([&] {
          return bytes_of_gradients(run_backward(portable_backward, c, forward));
        }) == std::vector<std::string>{});
}
