// The list of tensors against the tensors of a model.
#include "moe/tensor_list.h"

#include <map>

#include "core/config/hf_config.h"
#include "moe/transformer.h"
#include "tests/catch.h"
#include "tests/fixtures.h"
#include "tests/moe/tiny.h"

using namespace cohort;

namespace {

using Shapes = std::map<std::string, std::vector<int64_t>>;

Shapes listed(const core::ModelConfig& config) {
  Shapes shapes;
  moe::for_each_tensor(config, [&](const moe::TensorSpec& spec) {
    CHECK(shapes.emplace(spec.name, spec.shape).second);
    return true;
  });
  return shapes;
}

Shapes built(const core::ModelConfig& config) {
  const moe::Transformer model(config, distributed::make_local_mesh().ep, 1, at::kFloat);
  Shapes shapes;
  for (const auto& parameter : model.parameters())
    for (const auto& part : parameter.parts) shapes[part.name] = part.shape;
  for (const auto& buffer : model.buffers()) shapes[buffer.name] = buffer.value.sizes().vec();
  return shapes;
}

}  // namespace

TEST_CASE("the list of a model's tensors is that of the model itself", "[moe][tensor-list]") {
  core::ModelConfig config = tests::tiny_model();
  CHECK(listed(config) == built(config));
  config.n_shared_experts = 0;
  config.q_lora_rank = 0;
  config.first_k_dense_replace = 3;
  config.tie_word_embeddings = true;
  CHECK(listed(config) == built(config));
  config.num_nextn_predict_layers = 0;
  config.n_routed_experts = 0;
  CHECK(listed(config) == built(config));
}

TEST_CASE("the list of tensors is that of every reference model", "[moe][tensor-list][parity]") {
  for (const char* kind : {"deepseek_v3", "qwen"})
    for (const auto& folder : tests::cases(kind)) {
      CAPTURE(folder);
      const auto config = core::read_hf_config(folder.string());
      CHECK(listed(config) == built(config));
    }
}

TEST_CASE("a walk over the tensors ends when it is told to", "[moe][tensor-list]") {
  core::ModelConfig config = tests::tiny_model();
  config.num_hidden_layers = 10000;
  config.n_routed_experts = 65536;  // 2 x 10^9 names
  int seen = 0;
  moe::for_each_tensor(config, [&](const moe::TensorSpec&) { return ++seen < 5; });
  CHECK(seen == 5);
}
