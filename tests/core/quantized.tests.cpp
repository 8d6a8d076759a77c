#include "core/nn/quantized.h"

#include "core/base/error.h"
#include "core/nn/linear.h"
#include "core/nn/token_log_probs.h"
#include "tests/catch.h"

using namespace cohort;
using Catch::Contains;

namespace {

at::Tensor parameter(at::IntArrayRef shape, at::ScalarType dtype = at::kFloat) {
  return at::randn(shape).to(dtype).set_requires_grad(true);
}

}  // namespace

TEST_CASE("a linear layer with a quantised weight multiplies the dequantised one",
          "[nn-quantized]") {
  at::manual_seed(1);
  for (const int bits : {8, 4}) {
    at::Tensor weight = parameter({70, 90});
    const at::Tensor other_handle = weight, before = weight.detach().clone();
    core::quantize_weight(weight, {bits, 32});
    CHECK(core::is_quantized(other_handle));
    CHECK(weight.sizes() == at::IntArrayRef({70, 90}));
    const at::Tensor stands_for = core::dequantized(other_handle);
    CHECK((stands_for - before).abs().max().item<double>() < (bits == 8 ? 0.02 : 0.3));
    const at::Tensor x = at::randn({2, 5, 90});
    const at::Tensor y = core::linear(x, other_handle);
    CHECK(at::allclose(y, at::matmul(x, stands_for.t()), 1e-5, 1e-5));
    if (core::own_fp32_gemm()) CHECK(at::equal(y, core::linear(x, stands_for)));
    CHECK(core::linear(at::zeros({0, 90}), weight).sizes() == at::IntArrayRef({0, 70}));
  }
}

TEST_CASE("grouped products with quantised experts", "[nn-quantized]") {
  at::manual_seed(2);
  at::Tensor weight = parameter({4, 33, 48});
  core::quantize_weight(weight, {4, 16});
  const at::Tensor stands_for = core::dequantized(weight), x = at::randn({11, 48});
  const std::vector<int64_t> counts{3, 0, 7, 1};
  const at::Tensor y = core::grouped_linear(x, weight, counts);
  CHECK(at::allclose(y, core::grouped_linear(x, stands_for, counts), 1e-5, 1e-5));
  CHECK_FALSE(at::allclose(y, core::grouped_linear(x, stands_for.flip(0), counts), 1e-2, 1e-2));
}

TEST_CASE("bf16 weights and rows are multiplied in fp32 and rounded once", "[nn-quantized]") {
  at::manual_seed(3);
  at::Tensor weight = parameter({40, 64}, at::kBFloat16);
  core::quantize_weight(weight, {8, 64});
  const at::Tensor x = at::randn({6, 64}).to(at::kBFloat16), y = core::linear(x, weight);
  CHECK(y.scalar_type() == at::kBFloat16);
  const at::Tensor expected = at::mm(x.to(at::kFloat), core::dequantized(weight).t());
  CHECK(at::allclose(y.to(at::kFloat), expected, 8e-3, 1e-4));
}

TEST_CASE("embedding and head of a quantised matrix", "[nn-quantized]") {
  at::manual_seed(4);
  at::Tensor weight = parameter({50, 24});
  core::quantize_weight(weight, {8, 10});
  const at::Tensor stands_for = core::dequantized(weight);
  const at::Tensor ids = at::randint(50, {3, 7}, at::kLong);
  CHECK(at::equal(core::embedding(weight, ids), at::embedding(stands_for, ids)));
  CHECK_THROWS_AS(core::embedding(weight, at::full({1}, 50, at::kLong)), Error);
  const at::Tensor x = at::randn({7, 24}), target = ids[0].contiguous();
  const auto ours = core::score_tokens(x, weight, target);
  CHECK(
      at::allclose(ours.log_prob, core::score_tokens(x, stands_for, target).log_prob, 1e-5, 1e-5));
}

TEST_CASE("a quantised weight frees its memory, and other operations see NaN", "[nn-quantized]") {
  at::Tensor weight = parameter({256, 256});
  const c10::weak_intrusive_ptr<c10::StorageImpl> storage(weight.storage().getWeakStorageImpl());
  CHECK_FALSE(storage.expired());
  core::quantize_weight(weight, {4, 128});
  CHECK(storage.expired());
  CHECK(weight.storage().nbytes() <= 64);
  CHECK(core::weight_bytes(weight) == 256 * 128 + 256 * 2 * 8);
  CHECK(core::weight_bytes(at::zeros({4, 4})) == 64);
  CHECK(weight.sum().isnan().item<bool>());
  CHECK(core::linear(at::ones({1, 256}), weight.clone()).isnan().all().item<bool>());
  CHECK(core::is_quantized(weight.detach()));
}

TEST_CASE("what cannot be quantised, or trained once it is, throws", "[nn-quantized]") {
  at::Tensor weight = parameter({8, 8});
  core::quantize_weight(weight, {8, 8});
  CHECK_FALSE(weight.requires_grad());
  CHECK_THROWS_WITH(core::quantize_weight(weight, {8, 8}), Contains("quantised already"));
  const at::Tensor x = at::ones({1, 8}).set_requires_grad(true);
  CHECK_THROWS_WITH(core::linear(x, weight), Contains("no gradient"));
  CHECK_THROWS_AS(core::quantize_weight(parameter({8}), {8, 8}), Error);
  CHECK_THROWS_AS(core::quantize_weight(parameter({8, 8}, at::kDouble), {8, 8}), Error);
  CHECK_THROWS_AS(core::quantize_weight(parameter({8, 8}), {3, 8}), Error);
  at::Tensor broken = at::full({8, 8}, INFINITY);
  CHECK_THROWS_WITH(core::quantize_weight(broken, {8, 8}), Contains("not finite"));
}
