#include <fstream>

#include "core/base/error.h"
#include "core/config/hf_config.h"
#include "core/config/validate.h"
#include "tests/catch.h"
#include "tests/fixtures.h"
#include "tests/scratch_folder.h"

using namespace cohort::core;
using nlohmann::json;

namespace {

std::vector<json> fixture_configs() {
  std::vector<json> configs;
  for (const char* kind : {"deepseek_v3", "qwen", "mtp"})
    for (const auto& folder : cohort::tests::cases(kind)) {
      std::ifstream file(folder / "config.json");
      if (file.good()) configs.push_back(json::parse(file));
    }
  REQUIRE_FALSE(configs.empty());
  return configs;
}

std::string input_error(const json& config) {
  try {
    model_config_from_hf(config, "config.json");
  } catch (const cohort::InputError& error) {
    return error.what();
  }
  FAIL("nothing was refused: " << config.dump());
  return "";
}

json small(const std::string& model_type) {
  return {{"model_type", model_type},
          {"vocab_size", 300},
          {"hidden_size", 64},
          {"intermediate_size", 96},
          {"num_hidden_layers", 4},
          {"num_attention_heads", 4},
          {"num_key_value_heads", model_type == "deepseek_v3" ? 4 : 2}};
}

json with(json config, const json& more) {
  config.update(more);
  return config;
}

}  // namespace

TEST_CASE("fields of a config.json of transformers arrive in their members",
          "[core-config][parity]") {
  for (const json& hf : fixture_configs()) {
    const ModelConfig model = model_config_from_hf(hf, "config.json");
    INFO(hf.dump());
    CHECK(model.model_type == hf["model_type"]);
    CHECK(model.vocab_size == hf["vocab_size"]);
    CHECK(model.hidden_size == hf["hidden_size"]);
    CHECK(model.intermediate_size == hf["intermediate_size"]);
    CHECK(model.num_hidden_layers == hf["num_hidden_layers"]);
    CHECK(model.num_attention_heads == hf["num_attention_heads"]);
    CHECK(model.num_key_value_heads == hf["num_key_value_heads"]);
    CHECK(model.max_position_embeddings == hf["max_position_embeddings"]);
    CHECK(model.rms_norm_eps == hf["rms_norm_eps"]);
    CHECK(model.tie_word_embeddings == hf["tie_word_embeddings"]);
    CHECK(model.rope.rope_theta == hf["rope_parameters"]["rope_theta"]);
    CHECK(model.rope.rope_type == hf["rope_parameters"]["rope_type"]);
    CHECK(model.rope.factor == hf["rope_parameters"].value("factor", 1.0));
    CHECK(model.eos_token_id == hf["eos_token_id"]);
    CHECK(model.n_routed_experts == hf.value("n_routed_experts", hf.value("num_local_experts", 0)));
    CHECK(model.uses_mla() == hf.contains("kv_lora_rank"));
    if (!model.uses_mla()) {
      CHECK(model.head_dim == hf.value("head_dim", 0));
      CHECK(model.qk_norm == (model.model_type != "qwen2"));
      CHECK(model.attention_bias == (model.model_type == "qwen2"));
      CHECK_FALSE(model.rope_interleave);
      continue;
    }
    CHECK(model.q_lora_rank == (hf["q_lora_rank"].is_null() ? json(0) : hf["q_lora_rank"]));
    CHECK(model.kv_lora_rank == hf["kv_lora_rank"]);
    CHECK(model.qk_nope_head_dim == hf["qk_nope_head_dim"]);
    CHECK(model.qk_rope_head_dim == hf["qk_rope_head_dim"]);
    CHECK(model.v_head_dim == hf["v_head_dim"]);
    CHECK(model.n_group == hf["n_group"]);
    CHECK(model.topk_group == hf["topk_group"]);
    CHECK(model.first_k_dense_replace == hf["first_k_dense_replace"]);
    CHECK(model.num_nextn_predict_layers == hf["num_nextn_predict_layers"]);
    CHECK(model.routed_scaling_factor == hf["routed_scaling_factor"]);
  }
}

TEST_CASE("config.json is written so that it reads back as the same model",
          "[core-config][parity]") {
  for (const json& hf : fixture_configs()) {
    const ModelConfig model = model_config_from_hf(hf, "config.json");
    const json written = model_config_to_hf(model);
    INFO(written.dump());
    ModelConfig again = model_config_from_hf(written, "written");
    if (model.head_dim == 0) again.head_dim = 0;  // written out in full
    CHECK(again == model);
    // What the reference said itself, in fields that both have. num_experts is read by both
    // versions of transformers, num_local_experts is not; rope is in the spelling of version 4.
    for (const auto& [key, value] : written.items())
      if (hf.contains(key)) CHECK(value == hf[key]);
    CHECK(written["rope_theta"] == hf["rope_parameters"]["rope_theta"]);
    CHECK(written["rope_scaling"].is_null() == (model.rope.rope_type == "default"));
  }
}

TEST_CASE("fields absent from config.json have transformers' defaults", "[core-config]") {
  const ModelConfig deepseek = model_config_from_hf(
      with(small("deepseek_v3"), {{"num_attention_heads", 128}, {"num_key_value_heads", nullptr}}),
      "x");
  CHECK(deepseek.n_routed_experts == 256);
  CHECK(deepseek.num_experts_per_tok == 8);
  CHECK(deepseek.q_lora_rank == 1536);
  CHECK(deepseek.kv_lora_rank == 512);
  CHECK(deepseek.first_k_dense_replace == 3);
  CHECK(deepseek.num_key_value_heads == 128);
  CHECK(deepseek.routed_scaling_factor == 2.5);
  CHECK(deepseek.rope.rope_theta == 10000.0);
  CHECK(deepseek.bos_token_id == 0);
  CHECK(deepseek.num_nextn_predict_layers == 0);
  CHECK(model_config_from_hf(small("qwen3"), "x").head_dim == 128);
  CHECK(model_config_from_hf(small("qwen3"), "x").rms_norm_eps == 1e-6);
  CHECK(model_config_from_hf(small("qwen2"), "x").head_dim == 0);
  CHECK(model_config_from_hf(small("qwen2"), "x").eos_token_id == -1);
  const ModelConfig moe = model_config_from_hf(small("qwen3_moe"), "x");
  CHECK(moe.n_routed_experts == 128);
  CHECK(moe.moe_intermediate_size == 768);
  CHECK_FALSE(moe.norm_topk_prob);
  CHECK(moe.scoring_func == "softmax");
  CHECK(moe.n_shared_experts == 0);
  CHECK(moe.first_k_dense_replace == 0);
}

TEST_CASE("the older spellings of config.json are read", "[core-config]") {
  const json old =
      with(small("qwen3_moe"),
           {{"num_experts", 16},
            {"rope_theta", 1000000},
            {"rope_scaling", {{"type", "yarn"}, {"factor", 4}, {"beta_fast", nullptr}}},
            {"mlp_only_layers", nullptr},
            {"sliding_window", 4096},
            {"use_sliding_window", false},
            {"torch_dtype", "bfloat16"},
            {"eos_token_id", {7, 8}}});
  const ModelConfig model = model_config_from_hf(old, "x");
  CHECK(model.n_routed_experts == 16);
  CHECK(model.rope.rope_theta == 1e6);
  CHECK(model.rope.rope_type == "yarn");
  CHECK(model.rope.factor == 4.0);
  CHECK(model.rope.beta_fast == 32.0);
  CHECK(model.rope.original_max_position_embeddings == 32768);
  CHECK(model.eos_token_id == 7);
}

TEST_CASE("what Cohort cannot compute of a config.json is refused by its field", "[core-config]") {
  const std::tuple<json, const char*, const char*> kBad[] = {
      {json::array(), "config.json: ", "is no map"},
      {json::object(), "config.json: model_type: ", "is missing"},
      {small("llama"), "config.json: model_type: ", "'llama' is not known"},
      {with(small("qwen3"), {{"model_type", 3}}), "config.json: model_type: ", "'3' is not known"},
      {json{{"model_type", "qwen3"}}, "config.json: vocab_size: ", "is missing"},
      {with(small("qwen3"), {{"hidden_size", "64"}}), "config.json: hidden_size: ", "whole number"},
      {with(small("qwen3"), {{"hidden_size", 64.5}}), "config.json: hidden_size: ", "whole number"},
      {with(small("qwen3"), {{"hidden_size", {64}}}), "config.json: hidden_size: ", "a list"},
      {with(small("qwen3"), {{"hidden_size", nullptr}}), "config.json: hidden_size: ", "null"},
      {with(small("qwen3"), {{"hidden_size", -64}}), "config.json: hidden_size: ", "out of range"},
      {with(small("qwen3"), {{"tie_word_embeddings", 1.5}}),
       "config.json: tie_word_embeddings: ",
       "true or false"},
      {with(small("qwen3"), {{"hidden_act", "gelu"}}),
       "config.json: hidden_act: ",
       "want \"silu\""},
      {with(small("qwen3"), {{"attention_dropout", 0.1}}),
       "config.json: attention_dropout: ",
       "want 0.0"},
      {with(small("qwen3"), {{"use_sliding_window", true}, {"sliding_window", 64}}),
       "config.json: use_sliding_window: ",
       "want false"},
      {with(small("qwen3"), {{"layer_types", {"full_attention", "sliding_attention"}}}),
       "config.json: layer_types: ",
       "full_attention"},
      {with(small("qwen3"), {{"attention_bias", true}}), "config.json: attention_bias: ", "qwen3"},
      {with(small("qwen3_moe"), {{"mlp_only_layers", {0}}}),
       "config.json: mlp_only_layers: ",
       "want []"},
      {with(small("deepseek_v3"), {{"moe_layer_freq", 2}}),
       "config.json: moe_layer_freq: ",
       "want 1"},
      {with(small("deepseek_v3"), {{"topk_method", "greedy"}}),
       "config.json: topk_method: ",
       "noaux_tc"},
      {with(small("deepseek_v3"), {{"n_group", 7}}), "config.json: n_group: ", "equal groups"},
      {with(small("qwen3"), {{"num_key_value_heads", 3}}),
       "config.json: num_key_value_heads: ",
       "divisor"},
      {with(small("qwen3"), {{"rope_scaling", {{"rope_type", "llama3"}}}}),
       "config.json: rope_scaling.rope_type: ",
       "default, yarn"},
      {with(small("qwen3"),
            {{"rope_scaling", {{"rope_type", "yarn"}, {"factor", 4}, {"attention_factor", 1.5}}}}),
       "config.json: rope_scaling.attention_factor: ",
       "left out"},
      {with(small("qwen3"), {{"rope_parameters", {1, 2}}}),
       "config.json: rope_parameters: ",
       "not a map"},
      {with(small("qwen3"), {{"eos_token_id", 300}}), "config.json: eos_token_id: ", "vocab"},
      {with(small("qwen3"), {{"eos_token_id", json::array()}}),
       "config.json: eos_token_id: ",
       "a list"},
  };
  for (const auto& [config, place, right] : kBad) {
    const std::string message = input_error(config);
    INFO(config.dump());
    INFO(message);
    CHECK(message.starts_with(place));
    CHECK(message.find(right) != std::string::npos);
    CHECK(message.find('\n') == std::string::npos);
  }
}

TEST_CASE("a model that config.json cannot say is not written", "[core-config]") {
  ModelConfig model;
  model.scoring_func = "softmax";
  CHECK_THROWS_AS(model_config_to_hf(model), cohort::InputError);
}

TEST_CASE("multi-token prediction keeps its order through config.json", "[core-config]") {
  ModelConfig model;
  model.num_nextn_predict_layers = 1;
  model.mtp_embedding_first = model.mtp_after_norm = false;
  CHECK(model_config_from_hf(model_config_to_hf(model), "x") == model);
}

TEST_CASE("a dense deepseek_v3 model is written as one whose layers are all dense",
          "[core-config]") {
  ModelConfig model;
  model.n_routed_experts = 0;
  const json written = model_config_to_hf(model);
  CHECK(written["first_k_dense_replace"] == model.num_hidden_layers);
  const ModelConfig again = model_config_from_hf(written, "x");
  for (int64_t layer = 0; layer < model.num_hidden_layers; ++layer)
    CHECK_FALSE(again.is_moe_layer(layer));
}

TEST_CASE("every end token of config.json and generation_config.json ends a completion",
          "[core-config]") {
  const cohort::tests::ScratchFolder folder;
  const json base = small("qwen2");
  ModelConfig model = model_config_from_hf(with(base, {{"eos_token_id", {5, 9, 5}}}), "c");
  CHECK(model.eos_token_id == 5);
  CHECK(model.further_eos_token_ids == std::vector<int64_t>{9});
  CHECK(model_config_to_hf(model)["eos_token_id"] == json{5, 9});
  folder.write("config.json", with(base, {{"eos_token_id", 5}}).dump());
  folder.write("generation_config.json", R"({"eos_token_id": [7, 5]})");
  model = read_hf_config(folder.path);
  CHECK(model.eos_token_id == 5);
  CHECK((model.is_end(5) && model.is_end(7) && !model.is_end(9)));
  folder.write("config.json", base.dump());
  CHECK(read_hf_config(folder.path).eos_token_id == 7);
  for (const char* bad : {R"({"eos_token_id": "x"})", R"({"eos_token_id": 300})", "[]", "{"}) {
    folder.write("generation_config.json", bad);
    CHECK_THROWS_WITH(read_hf_config(folder.path), Catch::Contains("generation_config.json"));
  }
}

TEST_CASE("of quantisations the fp8 of DeepSeek-V3's checkpoints is known", "[core-config]") {
  const auto block = [](const json& settings) {
    return fp8_block_from_hf(with(small("deepseek_v3"), {{"quantization_config", settings}}), "c");
  };
  const json fp8 = {{"quant_method", "fp8"}, {"fmt", "e4m3"}, {"activation_scheme", "dynamic"}};
  CHECK(block(nullptr) == std::array<int64_t, 2>{128, 128});
  CHECK(block(fp8) == std::array<int64_t, 2>{128, 128});
  CHECK(block(with(fp8, {{"weight_block_size", {64, 32}}})) == std::array<int64_t, 2>{64, 32});
  for (const json& bad : {json{{"quant_method", "awq"}},
                          with(fp8, {{"fmt", "e5m2"}}),
                          with(fp8, {{"weight_block_size", {0, 128}}}),
                          with(fp8, {{"weight_block_size", 128}}),
                          json("fp8")})
    CHECK_THROWS_WITH(block(bad), Catch::Contains("c: quantization_config"));
}

TEST_CASE("JSON that two readers could read in two ways is refused", "[core-config]") {
  const cohort::tests::ScratchFolder folder;
  for (const std::string& bad : {std::string(R"({"vocab_size": 1, "vocab_size": 2})"),
                                 std::string(200, '['),
                                 std::string(R"({"rms_norm_eps": 1e999})"),
                                 std::string("{}\0", 3),
                                 std::string("\xff"),
                                 std::string()}) {
    folder.write("config.json", bad);
    CHECK_THROWS_AS(read_hf_config(folder.path), cohort::InputError);
  }
}
