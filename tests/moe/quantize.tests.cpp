#include "moe/quantize.h"

#include "core/nn/linear.h"
#include "tests/catch.h"
#include "tests/moe/tiny.h"

using namespace cohort;

namespace {

core::ModelConfig small_model() {
  core::ModelConfig config = tests::tiny_model();
  config.hidden_size = 64;
  config.moe_intermediate_size = 32;
  config.num_nextn_predict_layers = 0;
  return config;
}

moe::Transformer drawn(const core::ModelConfig& config, at::ScalarType dtype) {
  return moe::Transformer(config, distributed::make_local_mesh().ep, 5, dtype);
}

at::Tensor logits_of(moe::Transformer& model) {
  at::NoGradGuard no_grad;
  const auto ids = tests::random_rows(9, 2, 30, model.config().vocab_size).tokens;
  return core::linear(model.forward(ids, at::Tensor(), {}).hidden, model.head()).to(at::kFloat);
}

}  // namespace

TEST_CASE("a quantised model is the model of its dequantised weights", "[moe-quantize]") {
  for (const bool tied : {false, true})
    for (const int bits : {8, 4}) {
      core::ModelConfig config = small_model();
      config.tie_word_embeddings = tied;
      auto model = drawn(config, at::kFloat), reference = drawn(config, at::kFloat);
      const at::Tensor whole = logits_of(model);
      const moe::Quantization done = moe::quantize(model, {bits, 16});
      CHECK(done.bytes_before == moe::parameter_bytes(reference));
      CHECK(done.bytes_after == moe::parameter_bytes(model));
      CHECK(done.bytes_after < done.bytes_before / (bits == 8 ? 2 : 3));
      const auto ours = model.parameters(), theirs = reference.parameters();
      int64_t matrices = 0;
      for (size_t i = 0; i < ours.size(); ++i) {
        at::NoGradGuard no_grad;
        at::Tensor value = theirs[i].value;
        value.copy_(core::dequantized(ours[i].value));
        matrices += core::is_quantized(ours[i].value);
      }
      CHECK(matrices == done.matrices);
      const at::Tensor few_bits = logits_of(model);
      CHECK(at::allclose(few_bits, logits_of(reference), 1e-4, 1e-4));
      // It is another model than before, and 8 bits are nearer to it than 4.
      const double off = (few_bits - whole).norm().item<double>() / whole.norm().item<double>();
      INFO(bits << " bits: logits are off by " << off);
      CHECK(off > 1e-5);
      CHECK(off < (bits == 8 ? 0.2 : 1.0));
    }
}

TEST_CASE("routers, norms and kv_b_proj keep their precision", "[moe-quantize]") {
  auto model = drawn(small_model(), at::kFloat);
  moe::quantize(model, {4, 16});
  for (const auto& parameter : model.parameters()) {
    const std::string& name = parameter.parts[0].name;
    const bool kept = parameter.value.dim() < 2 || name.find("kv_b_proj") != std::string::npos ||
                      name.ends_with("mlp.gate.weight");
    INFO(name);
    CHECK(core::is_quantized(parameter.value) != kept);
  }
}

TEST_CASE("a quantised bf16 model decodes what it predicts", "[moe-quantize]") {
  auto model = drawn(small_model(), at::kBFloat16);
  const at::Tensor whole = logits_of(model);
  moe::quantize(model, {8, 32});
  const at::Tensor few_bits = logits_of(model);
  CHECK(few_bits.isfinite().all().item<bool>());
  CHECK((few_bits - whole).norm().item<double>() < 0.3 * whole.norm().item<double>());
}
