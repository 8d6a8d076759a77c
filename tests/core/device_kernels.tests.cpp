// Attention with the device kernels, run on the host, behind core's operation.
#include "tests/device_kernels.h"

#include "core/nn/attention.h"
#include "core/nn/attention_op.h"
#include "core/nn/rope.h"
#include "tests/catch.h"
#include "tests/core/gradients.h"

using namespace cohort;
using namespace cohort::tests;
using kernels::DeviceTable;

namespace {

/// bf16 with kernels against the CPU's fp64: rounding of operands, of probabilities and of sums.
void compare(const Function& f, const std::vector<at::Tensor>& inputs) {
  const auto rounded = leaves(inputs, at::kBFloat16);
  const auto exact = leaves(rounded, at::kDouble);
  const auto out = f(exact);
  const auto d_out = random(out.sizes(), at::kBFloat16);
  const auto expected = gradients_of(f, exact, d_out);
  const EmulatedKernels kernels;
  const auto found = f(rounded);
  CHECK(kernels.calls<&DeviceTable::attention_forward>() == 1);
  CHECK(error_of(found, out) < 2e-2);
  const auto gradients = gradients_of(f, rounded, d_out);
  CHECK(kernels.calls<&DeviceTable::attention_backward>() == 1);
  for (size_t i = 0; i < gradients.size(); ++i) {
    INFO("gradient of input " << i);
    CHECK(gradients[i].scalar_type() == at::kBFloat16);
    CHECK(error_of(gradients[i], expected[i]) < 3e-2);
  }
}

/// Rows of documents of uneven length.
core::AttentionLayout documents(int64_t S) {
  auto ids = at::zeros({2, S}, at::kLong);
  ids[0].slice(0, 3).fill_(1);
  ids[1].slice(0, S - 1).fill_(4);
  return core::attention_layout(2, S, ids);
}

}  // namespace

TEST_CASE("Device kernels: attention of grouped heads", "[core-kernels]") {
  const int64_t S = 21;
  for (const auto& layout : {core::attention_layout(2, S, {}), documents(S)})
    for (const int64_t dim : {16, 32})
      compare(
          [&](const auto& in) { return core::causal_attention(in[0], in[1], in[2], layout, 0.3); },
          {random({2, S, 6, dim}), random({2, S, 2, dim}), random({2, S, 2, dim})});
}

TEST_CASE(
    "Device kernels: attention of latent heads, keys beside values and a rotating part that all "
    "share",
    "[core-kernels]") {
  const int64_t S = 19;
  for (const auto& layout : {core::attention_layout(2, S, {}), documents(S)})
    for (const bool interleave : {false, true})
      compare(
          [&](const auto& in) {
            const auto rope = core::rope_table(
                {}, 16, S, in[0].scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
            return core::attention_op(
                {in[0], in[1], in[2], {}}, {rope.cos, rope.sin, interleave}, layout, 0.2);
          },
          {random({2, S, 3, 48}), random({2, S, 3, 32 + 32}), random({2, S, 16})});
}

TEST_CASE("Device kernels: other head sizes and fp32 take LibTorch's operations",
          "[core-kernels]") {
  const auto layout = core::attention_layout(1, 5, {});
  const EmulatedKernels kernels;
  for (const auto& [dtype, dim] : {std::pair{at::kBFloat16, 24}, {at::kFloat, 16}}) {
    const auto x = random({1, 5, 2, dim}, dtype);
    CHECK(core::causal_attention(x, x, x, layout, 0.3).sizes() == x.sizes());
  }
  CHECK(kernels.calls<&DeviceTable::attention_forward>() == 0);
}

namespace {
/// While it lives, attention is by wgmma.
struct ByWgmma {
  ByWgmma() { core::set_wgmma_attention(true); }
  ~ByWgmma() { core::set_wgmma_attention(false); }
};
}  // namespace

TEST_CASE("Device kernels: attention by wgmma, and heads that it does not have are refused",
          "[core-kernels]") {
  const ByWgmma by_wgmma;
  const int64_t S = 70;
  for (const auto& layout : {core::attention_layout(2, S, {}), documents(S)})
    compare(
        [&](const auto& in) { return core::causal_attention(in[0], in[1], in[2], layout, 0.3); },
        {random({2, S, 4, 64}), random({2, S, 2, 64}), random({2, S, 2, 64})});
  const EmulatedKernels kernels;
  const auto x = random({1, 5, 2, 32}, at::kBFloat16);
  const auto layout = core::attention_layout(1, 5, {});
  CHECK_THROWS_WITH(core::causal_attention(x, x, x, layout, 0.3),
                    Catch::Matchers::Contains("COHORT_ATTENTION=wgmma") &&
                        Catch::Matchers::Contains("heads of 32 and 32"));
}
