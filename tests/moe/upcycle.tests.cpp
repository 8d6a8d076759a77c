#include "moe/upcycle.h"

#include "core/base/error.h"
#include "core/config/validate.h"
#include "moe/model_state.h"
#include "tests/catch.h"
#include "tests/moe/tiny.h"

using namespace cohort;
using Catch::Contains;
using moe::UpcycleOptions;

namespace {

core::ModelConfig dense_deepseek() {
  core::ModelConfig config = tests::tiny_model();
  config.n_routed_experts = 0;
  config.first_k_dense_replace = config.num_hidden_layers;
  return config;
}

core::ModelConfig dense_qwen(const char* type) {
  core::ModelConfig config = tests::tiny_model();
  config.model_type = type;
  core::fix_model_type(config);
  config.num_attention_heads = 4;
  config.num_key_value_heads = 2;
  config.head_dim = 8;
  config.num_nextn_predict_layers = 0;
  return config;
}

std::map<std::string, at::Tensor> tensors_of(const moe::Transformer& model) {
  std::map<std::string, at::Tensor> all;
  for (const auto& parameter : model.parameters())
    for (const auto& part : parameter.parts)
      all[part.name] = parameter.value.detach()
                           .view({-1})
                           .narrow(0, part.offset, c10::multiply_integers(part.shape))
                           .view(part.shape);
  for (const auto& buffer : model.buffers()) all[buffer.name] = buffer.value;
  return all;
}

moe::Transformer upcycled(const moe::Transformer& dense, const UpcycleOptions& options) {
  const auto source = tensors_of(dense);
  std::vector<std::string> names;
  for (const auto& [name, value] : source) names.push_back(name);
  const auto config = moe::upcycled_config(dense.config(), options);
  std::map<std::string, at::Tensor> made;
  for (const auto& tensor : moe::plan_upcycling(dense.config(), options, names))
    made[tensor.name] = moe::upcycled_tensor(
        tensor, config, options.seed, [&](const std::string& name) { return source.at(name); });
  moe::Transformer model(config, distributed::make_local_mesh().ep, 77, dense.dtype());
  size_t read = 0;
  moe::load_weights(model, [&](const std::string& name, const std::vector<int64_t>& shape) {
    ++read;
    REQUIRE(made.at(name).sizes() == at::IntArrayRef(shape));
    return made.at(name);
  });
  CHECK(read == made.size());
  return model;
}

/// Logits of the next token and of the prediction modules.
at::Tensor logits_of(moe::Transformer& model) {
  at::NoGradGuard no_grad;
  const auto ids = tests::random_rows(9, 3, 40, model.config().vocab_size).tokens;
  moe::PassOptions pass;
  pass.mtp = model.config().num_nextn_predict_layers > 0;
  const auto out = model.forward(ids, at::Tensor(), pass);
  std::vector<at::Tensor> hidden{out.hidden};
  hidden.insert(hidden.end(), out.mtp_hidden.begin(), out.mtp_hidden.end());
  return at::matmul(at::cat(hidden, 1), model.head().t());
}

double largest_difference(const core::ModelConfig& config,
                          const UpcycleOptions& options,
                          at::ScalarType dtype = at::kDouble) {
  moe::Transformer dense(config, distributed::make_local_mesh().ep, 5, dtype);
  moe::Transformer sparse = upcycled(dense, options);
  const at::Tensor expected = logits_of(dense);
  CHECK(expected.abs().max().item<double>() > 0.5);
  return (logits_of(sparse) - expected).abs().max().item<double>();
}

UpcycleOptions options_of(int64_t experts, int64_t top_k, int64_t granularity, int64_t shared = 0) {
  UpcycleOptions options;
  options.experts = experts;
  options.top_k = top_k;
  options.granularity = granularity;
  options.shared = shared;
  return options;
}

}  // namespace

TEST_CASE("an upcycled deepseek_v3 computes what the dense model did", "[moe-upcycle]") {
  const core::ModelConfig config = dense_deepseek();
  CHECK(largest_difference(config, options_of(4, 2, 1)) < 1e-10);  // copies
  CHECK(largest_difference(config, options_of(4, 1, 1)) < 1e-10);
  CHECK(largest_difference(config, options_of(12, 3, 3)) < 1e-10);    // slices
  CHECK(largest_difference(config, options_of(16, 8, 4)) < 1e-10);    // two copies of each
  CHECK(largest_difference(config, options_of(9, 3, 4, 1)) < 1e-10);  // one slice for all
  CHECK(largest_difference(config, options_of(4, 2, 4, 2)) < 1e-10);
  auto some = options_of(8, 4, 2);
  some.dense_layers = 1;
  CHECK(largest_difference(config, some) < 1e-10);
  CHECK(largest_difference(config, options_of(12, 6, 3), at::kFloat) < 2e-4);
}

TEST_CASE("an upcycled qwen3 computes what the dense model did", "[moe-upcycle]") {
  const core::ModelConfig config = dense_qwen("qwen3");
  CHECK(largest_difference(config, options_of(4, 2, 1)) < 1e-10);
  CHECK(largest_difference(config, options_of(8, 4, 2)) < 1e-10);
  CHECK(largest_difference(config, options_of(8, 4, 4)) < 1e-10);
  CHECK(moe::upcycled_config(config, options_of(8, 4, 4)).model_type == "qwen3_moe");
}

TEST_CASE("the function holds because whole copies are chosen with gates that sum to the slices",
          "[moe-upcycle]") {
  // The same experts behind a router whose rows differ within a copy compute another function.
  moe::Transformer dense(dense_deepseek(), distributed::make_local_mesh().ep, 5, at::kDouble);
  moe::Transformer sparse = upcycled(dense, options_of(12, 3, 3));
  const at::Tensor expected = logits_of(dense);
  for (const auto& parameter : sparse.parameters())
    if (parameter.parts[0].name.ends_with("mlp.gate.weight")) parameter.value.detach().normal_();
  CHECK((logits_of(sparse) - expected).abs().max().item<double>() > 1e-3);
}

TEST_CASE("copies of an expert are equal and are reached by different tokens", "[moe-upcycle]") {
  moe::Transformer dense(dense_deepseek(), distributed::make_local_mesh().ep, 5, at::kDouble);
  moe::Transformer sparse = upcycled(dense, options_of(12, 3, 3));
  const auto tensors = tensors_of(sparse);
  const std::string prefix = "model.layers.1.mlp.";
  const auto down = [&](int e) {
    return tensors.at(prefix + "experts." + std::to_string(e) + ".down_proj.weight");
  };
  CHECK(at::equal(down(0), down(3)));
  CHECK_FALSE(at::equal(down(0), down(1)));
  const at::Tensor gate = tensors.at(prefix + "gate.weight");
  CHECK(at::equal(gate[0], gate[2]));
  CHECK_FALSE(at::equal(gate[0], gate[3]));
  CHECK(
      at::equal(tensors.at(prefix + "gate.e_score_correction_bias"), at::zeros({12}, at::kDouble)));
  at::NoGradGuard no_grad;
  const auto ids = tests::random_rows(9, 3, 40, 61).tokens;
  moe::PassOptions pass;
  pass.count_loads = true;
  sparse.forward(ids, at::Tensor(), pass);
  const at::Tensor load = sparse.moe_layers()[0]->load();
  CHECK((load > 0).sum().item<int64_t>() > 3);
  CHECK(at::equal(load.view({4, 3}).select(1, 0), load.view({4, 3}).select(1, 2)));
}

TEST_CASE("upcycling that cannot be exact is refused", "[moe-upcycle]") {
  const core::ModelConfig deepseek = dense_deepseek(), qwen = dense_qwen("qwen3");
  const auto refused = [](const core::ModelConfig& config, const UpcycleOptions& options) {
    try {
      moe::upcycled_config(config, options);
    } catch (const InputError& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  CHECK(refused(deepseek, options_of(4, 2, 1)) == "");
  CHECK_THAT(refused(tests::tiny_model(), options_of(4, 2, 1)), Contains("has 8 routed experts"));
  CHECK_THAT(refused(dense_qwen("qwen2"), options_of(4, 2, 1)), Contains("biases"));
  CHECK_THAT(refused(deepseek, options_of(5, 5, 5)), Contains("24 cannot be cut into 5"));
  CHECK_THAT(refused(deepseek, options_of(5, 2, 2)), Contains("--experts: 5"));
  CHECK_THAT(refused(deepseek, options_of(8, 3, 2)), Contains("--top-k"));
  CHECK_THAT(refused(deepseek, options_of(8, 10, 2)), Contains("up to 8, not 10"));
  CHECK_THAT(refused(deepseek, options_of(8, 2, 2, 2)), Contains("--shared: 2 of 2"));
  CHECK_THAT(refused(qwen, options_of(8, 2, 2, 1)), Contains("--shared"));
  CHECK_THAT(refused(qwen, options_of(6, 3, 3)), Contains("power of two"));
  auto all_dense = options_of(4, 2, 1);
  all_dense.dense_layers = 3;
  CHECK_THAT(refused(deepseek, all_dense), Contains("--dense-layers: 3 of 3"));
  CHECK_THROWS_WITH(
      moe::plan_upcycling(deepseek, options_of(4, 2, 1), {"model.layers.0.mlp.up_proj.weight"}),
      Contains("lacks") && Contains("model.layers.1.mlp.down_proj.weight"));
}
