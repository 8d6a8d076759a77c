// Weights on disk: blocks of F8_E4M3, values that are no numbers, copies, faults.
#include "rl/weight_source.h"

#include <limits>

#include "core/base/error.h"
#include "core/config/hf_config.h"
#include "core/io/finite.h"
#include "core/io/safetensors.h"
#include "moe/tensor_list.h"
#include "tests/catch.h"
#include "tests/moe/tiny.h"
#include "tests/scratch_folder.h"

using namespace cohort;
using Catch::Contains;

namespace {

std::vector<core::NamedTensor> random_weights(const core::ModelConfig& config) {
  std::vector<core::NamedTensor> tensors;
  moe::for_each_tensor(config, [&](const moe::TensorSpec& spec) {
    tensors.push_back({spec.name, at::randn(spec.shape)});
    return true;
  });
  return tensors;
}

at::Tensor& value_of(std::vector<core::NamedTensor>& tensors, const std::string& name) {
  for (auto& tensor : tensors)
    if (tensor.name == name) return tensor.value;
  throw std::runtime_error("no tensor " + name);
}

/// Opens a folder of these tensors; `more` is added to its config.json.
std::unique_ptr<rl::WeightSource> folder_of(const tests::ScratchFolder& scratch,
                                            const core::ModelConfig& config,
                                            const std::vector<core::NamedTensor>& tensors,
                                            const nlohmann::json& more = nlohmann::json::object()) {
  auto json = nlohmann::json(core::model_config_to_hf(config));
  json.update(more);
  scratch.write("m/config.json", json.dump());
  core::write_safetensors(scratch / "m/model.safetensors", tensors);
  return rl::open_hugging_face_weights(scratch / "m");
}

at::Tensor read(const rl::WeightSource& source, const std::string& name, at::ScalarType dtype) {
  const at::Tensor value = at::empty(source.tensors().at(name).shape, at::dtype(dtype));
  CHECK(source.read(name, value));
  return value;
}

}  // namespace

TEST_CASE("blocks of F8_E4M3 are multiplied out, whatever is left over at their edges",
          "[rl-weights]") {
  const tests::ScratchFolder scratch;
  core::ModelConfig config = tests::tiny_model();
  config.vocab_size = 300;  // 3 blocks of 128 rows, the last of 44
  config.hidden_size = 200;
  auto tensors = random_weights(config);
  const std::string name = "model.embed_tokens.weight";
  const at::Tensor codes = at::randn({300, 200}).to(at::kFloat8_e4m3fn);
  const at::Tensor scales = at::rand({3, 2}) + 0.5;
  value_of(tensors, name) = codes;
  tensors.push_back({name + "_scale_inv", scales});
  const auto source = folder_of(scratch, config, tensors);
  CHECK(rl::weight_faults(config, *source).empty());
  CHECK(source->tensors().at(name).dtype == at::kBFloat16);
  CHECK_FALSE(source->has(name + "_scale_inv"));

  // Weight (i, j) is its code times the scale of block (i / 128, j / 128).
  const at::Tensor expected = at::empty({300, 200});
  const at::Tensor wide = codes.to(at::kFloat);
  for (int64_t i = 0; i < 300; ++i)
    for (int64_t j = 0; j < 200; ++j)
      expected[i].data_ptr<float>()[j] = wide.const_data_ptr<float>()[i * 200 + j] *
                                         scales.const_data_ptr<float>()[i / 128 * 2 + j / 128];
  CHECK(at::equal(read(*source, name, at::kFloat), expected));
  CHECK(at::equal(read(*source, name, at::kBFloat16), expected.to(at::kBFloat16)));

  const auto other = folder_of(
      scratch,
      config,
      tensors,
      {{"quantization_config", {{"quant_method", "fp8"}, {"weight_block_size", {64, 128}}}}});
  CHECK_THAT(rl::weight_faults(config, *other).at(0),
             Contains("_scale_inv is [3, 2], not [5, 2] (64 x 128 weights a scale)"));
}

TEST_CASE("F8_E4M3 without scales, and other quantisations, are refused by name", "[rl-weights]") {
  const tests::ScratchFolder scratch;
  const core::ModelConfig config = tests::tiny_model();
  auto tensors = random_weights(config);
  at::Tensor& norm = value_of(tensors, "model.norm.weight");
  norm = norm.to(at::kFloat8_e4m3fn);
  value_of(tensors, "lm_head.weight") = at::zeros({61, 16}, at::kInt);
  const auto faults = rl::weight_faults(config, *folder_of(scratch, config, tensors));
  REQUIRE(faults.size() == 2);
  CHECK_THAT(faults[0], Contains("\"lm_head.weight\" is I32; want"));
  CHECK(faults[1] == "model.norm.weight is F8_E4M3 and model.norm.weight_scale_inv is missing");
  CHECK_THROWS_WITH(
      folder_of(scratch, config, tensors, {{"quantization_config", {{"quant_method", "gptq"}}}}),
      Contains("quantization_config"));
}

TEST_CASE("every missing, misshapen and extra tensor has its line", "[rl-weights]") {
  const tests::ScratchFolder scratch;
  const core::ModelConfig config = tests::tiny_model();
  auto tensors = random_weights(config);
  std::erase_if(tensors, [](const auto& t) {
    return t.name == "model.norm.weight" || t.name.starts_with("model.layers.2.mlp.experts.");
  });
  value_of(tensors, "lm_head.weight") = at::zeros({60, 16});
  tensors.push_back({"model.layers.0.self_attn.rotary_emb.inv_freq", at::ones({4})});
  tensors.push_back({"model.layers.0.extra", at::ones({4})});
  const auto faults = rl::weight_faults(config, *folder_of(scratch, config, tensors));
  // 8 experts of three matrices, a norm, a head, one too many; inv_freq is computed.
  CHECK(faults.size() == 8 * 3 + 3);
  const std::string message = rl::fault_message("m", faults);
  CHECK_THAT(message, Contains("m: model.layers.2.mlp.experts.7.down_proj.weight is missing\n"));
  CHECK_THAT(message, Contains("m: model.norm.weight is missing\n"));
  CHECK_THAT(message, Contains("m: lm_head.weight is [60, 16], not [61, 16]\n"));
  CHECK_THAT(message, Contains("m: \"model.layers.0.extra\" is none of the model's tensors"));
}

TEST_CASE("a config of a thousand million tensors is answered at once", "[rl-weights]") {
  const tests::ScratchFolder scratch;
  core::ModelConfig config = tests::tiny_model();
  const auto source = folder_of(scratch, config, random_weights(config));
  config.num_hidden_layers = 10000;
  config.n_routed_experts = 65536;
  const auto faults = rl::weight_faults(config, *source);
  CHECK(faults.size() == 1001);
  CHECK(faults.back() == "and more");
}

TEST_CASE("a copy of a tensor is taken when it equals its original", "[rl-weights]") {
  const tests::ScratchFolder scratch;
  core::ModelConfig config = tests::tiny_model();
  auto tensors = random_weights(config);
  const std::string copy = "model.layers.3.embed_tokens.weight";
  tensors.push_back({copy, value_of(tensors, "model.embed_tokens.weight").clone()});
  tensors.push_back(
      {"model.layers.4.shared_head.head.weight", value_of(tensors, "lm_head.weight").clone()});
  const auto source = folder_of(scratch, config, tensors);
  CHECK(rl::weight_faults(config, *source).empty());
  CHECK(rl::check_copies(config, *source) ==
        std::vector<std::string>{copy, "model.layers.4.shared_head.head.weight"});
  value_of(tensors, copy)[0][0] += 1;
  CHECK_THROWS_WITH(rl::check_copies(config, *folder_of(scratch, config, tensors)),
                    Contains(copy + " differs from model.embed_tokens.weight"));
}

TEST_CASE("NaN and infinity are found in every dtype of weights", "[rl-weights]") {
  const double infinity = std::numeric_limits<double>::infinity();
  for (const auto dtype :
       {at::kDouble, at::kFloat, at::kHalf, at::kBFloat16, at::kFloat8_e5m2, at::kFloat8_e4m3fn})
    for (const double bad : {std::nan(""), infinity, -infinity})
      for (const int64_t at : {0, 4095, 4096, 9999}) {
        if (dtype == at::kFloat8_e4m3fn && !std::isnan(bad)) continue;  // it has no infinity
        at::Tensor values = at::randn({10000}).clamp(-100, 100);
        CHECK(core::all_finite(values.to(dtype)));
        values[at] = bad;
        CAPTURE(c10::toString(dtype), bad, at);
        CHECK_FALSE(core::all_finite(values.to(dtype)));
      }
}
