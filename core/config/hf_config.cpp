#include "core/config/hf_config.h"

#include <filesystem>

#include "core/base/error.h"
#include "core/config/validate.h"
#include "core/config/values.h"
#include "core/io/strict_json.h"

namespace cohort::core {
namespace {

using nlohmann::json;

/// Reads fields of one config.json through the table of keys, so that types, ranges and messages
/// are those of the YAML parser.
struct Reader {
  const json& root;
  Source source;
  Config config;

  [[noreturn]] void refuse(const std::string& key,
                           const std::string& wrong,
                           const std::string& right) const {
    throw InputError(fmt::format("{}: {}: {}; {}", source.name, key, wrong, right));
  }
  std::string text(const json& value) const {
    if (value.is_string()) return quoted(value.get<std::string>());
    return quoted(value.dump(-1, ' ', false, json::error_handler_t::replace));
  }
  void set(const std::string& key, const std::string& name, const json& value) {
    YAML::Node node;
    if (value.is_structured())  // no field of a model is one: its kind is all that a message says
      node = YAML::Node(value.is_array() ? YAML::NodeType::Sequence : YAML::NodeType::Map);
    else
      node = YAML::Load(value.dump(-1, ' ', false, json::error_handler_t::replace));
    assign(*find_field(key), "", node, source, name, config);
  }
  /// Sets `key` from root[name] where it is there and not null.
  void set_if_given(const std::string& key, const std::string& name) {
    if (root.contains(name) && !root[name].is_null()) set(key, name, root[name]);
  }
};

/// What transformers 5 takes for fields that are absent, where ModelConfig's defaults differ.
ModelConfig absent_fields(const std::string& model_type) {
  ModelConfig model;
  model.model_type = model_type;
  fix_model_type(model);
  model.rms_norm_eps = 1e-6;
  model.initializer_range = 0.02;
  if (model_type == "deepseek_v3") {
    model.moe_intermediate_size = 2048;
    model.n_routed_experts = 256;
    model.num_experts_per_tok = 8;
    model.n_group = 8;
    model.topk_group = 4;
    model.routed_scaling_factor = 2.5;
    model.first_k_dense_replace = 3;
    model.q_lora_rank = 1536;
    model.kv_lora_rank = 512;
    model.qk_nope_head_dim = 128;
    model.qk_rope_head_dim = 64;
    model.v_head_dim = 128;
    model.max_position_embeddings = 4096;
    model.num_key_value_heads = 128;
    return model;
  }
  model.max_position_embeddings = 32768;
  model.bos_token_id = model.eos_token_id = -1;
  model.num_key_value_heads = model_type == "qwen3_moe" ? 4 : 32;
  if (model_type == "qwen3") model.head_dim = 128;
  if (model_type == "qwen3_moe") {
    model.n_routed_experts = 128;
    model.num_experts_per_tok = 8;
    model.moe_intermediate_size = 768;
    model.norm_topk_prob = false;
  }
  return model;
}

/// Fields whose only computed value is the one given here; absent and null are fine.
void refuse_other_features(const Reader& reader) {
  const std::pair<const char*, json> kOnly[] = {{"hidden_act", "silu"},
                                                {"attention_dropout", 0.0},
                                                {"moe_layer_freq", 1},
                                                {"topk_method", "noaux_tc"},
                                                {"mlp_only_layers", json::array()},
                                                {"partial_rotary_factor", 1.0}};
  for (const auto& [name, value] : kOnly) {
    if (!reader.root.contains(name)) continue;
    const json& given = reader.root[name];
    if (given.is_null() || given == value) continue;
    reader.refuse(name, reader.text(given) + " is not computed by Cohort", "want " + value.dump());
  }
  const json& root = reader.root;
  const bool windows = root.value("use_sliding_window", json(false)) == json(true) &&
                       root.contains("sliding_window") && !root["sliding_window"].is_null();
  if (windows)
    reader.refuse("use_sliding_window", "sliding windows are not computed by Cohort", "want false");
  if (root.contains("layer_types") && root["layer_types"].is_array())
    for (const json& type : root["layer_types"])
      if (type != "full_attention")
        reader.refuse("layer_types",
                      reader.text(type) + " is not computed by Cohort",
                      "want full_attention in every layer");
}

/// rope_parameters (transformers 5), or rope_scaling beside rope_theta (4).
void read_rope(Reader& reader) {
  reader.set_if_given("model.rope_parameters.rope_theta", "rope_theta");
  for (const std::string section : {"rope_parameters", "rope_scaling"}) {
    if (!reader.root.contains(section) || reader.root[section].is_null()) continue;
    const json& map = reader.root[section];
    if (!map.is_object())
      reader.refuse(section, reader.text(map) + " is not a map", "want rope_type, factor, ...");
    for (const auto& [name, value] : map.items()) {
      if (value.is_null() || (name == "type" && map.contains("rope_type"))) continue;
      const std::string key = canonical_key("model.rope_parameters." + name);
      const bool at_default = (name == "truncate" && value == true) ||
                              (name == "partial_rotary_factor" && value == 1.0);
      if (at_default) continue;
      if (!find_field(key))
        reader.refuse(section + "." + name,
                      reader.text(value) + " is not computed by Cohort",
                      "want it left out");
      reader.set(key, section + "." + name, value);
    }
  }
  ModelConfig& model = reader.config.model;
  if (model.rope.rope_type == "yarn" && model.rope.original_max_position_embeddings == 0)
    model.rope.original_max_position_embeddings = model.max_position_embeddings;
}

/// Token ids of a field that holds one or a list; empty when it is absent or null.
std::vector<int64_t> token_ids(const json& root,
                               const std::string& name,
                               const std::string& where) {
  if (!root.contains(name) || root[name].is_null()) return {};
  const json& value = root[name];
  COHORT_CHECK_INPUT(!value.is_array() || !value.empty(),
                     "{}: {}: is a list of nothing; want a token id",
                     where,
                     name);
  std::vector<int64_t> ids;
  for (const json& id : value.is_array() ? value : json::array({value})) {
    constexpr int64_t kMost = 1 << 24;
    COHORT_CHECK_INPUT(id.is_number_integer() && id >= -1 && id < kMost,
                       "{}: {}: {} is no token id; want one, or a list of them",
                       where,
                       name,
                       quoted(id.dump(-1, ' ', false, json::error_handler_t::replace)));
    ids.push_back(id);
  }
  return ids;
}

/// The first is eos_token_id where there is none yet.
void add_end_tokens(const std::vector<int64_t>& ids, ModelConfig& model) {
  for (const int64_t id : ids) {
    if (id < 0 || model.is_end(id)) continue;
    if (model.eos_token_id < 0)
      model.eos_token_id = id;
    else
      model.further_eos_token_ids.push_back(id);
  }
}

void read_tokens(Reader& reader) {
  reader.set_if_given("model.bos_token_id", "bos_token_id");
  ModelConfig& model = reader.config.model;
  if (reader.root.contains("bos_token_id") && reader.root["bos_token_id"].is_null())
    model.bos_token_id = -1;
  if (!reader.root.contains("eos_token_id")) return;
  model.eos_token_id = -1;
  add_end_tokens(token_ids(reader.root, "eos_token_id", reader.source.name), model);
}

void check_end_tokens(const ModelConfig& model, const std::string& where) {
  std::vector<int64_t> ids = model.further_eos_token_ids;
  ids.push_back(model.eos_token_id);
  for (const int64_t id : ids)
    COHORT_CHECK_INPUT(id < model.vocab_size,
                       "{}: eos_token_id: {} is beyond the vocab_size {}",
                       where,
                       id,
                       model.vocab_size);
}

void read_fields(Reader& reader) {
  for (const char* name : {"vocab_size",
                           "hidden_size",
                           "intermediate_size",
                           "num_hidden_layers",
                           "num_attention_heads"})
    if (!reader.root.contains(name))
      reader.refuse(name, "is missing", "want it, as transformers writes it");
  ModelConfig& model = reader.config.model;
  const bool is_deepseek = model.model_type == "deepseek_v3",
             is_qwen2 = model.model_type == "qwen2";
  for (const auto& [name, value] : reader.root.items()) {
    const std::string key = canonical_key("model." + name);
    if (!find_field(key) || key.starts_with("model.rope_parameters.")) continue;
    if (name == "bos_token_id" || name == "eos_token_id" || name == "num_key_value_heads") continue;
    // transformers overwrites the one and has the other written into the architecture.
    if ((name == "head_dim" && is_deepseek) || (name == "attention_bias" && is_qwen2)) continue;
    reader.set(key, name, value);
  }
  if (reader.root.contains("num_key_value_heads") && reader.root["num_key_value_heads"].is_null())
    model.num_key_value_heads = model.num_attention_heads;
  reader.set_if_given("model.num_key_value_heads", "num_key_value_heads");
}

nlohmann::ordered_json or_null(int64_t value, int64_t none) {
  return value == none ? nlohmann::ordered_json(nullptr) : nlohmann::ordered_json(value);
}

void write_rope(const RopeConfig& rope, nlohmann::ordered_json& out) {
  // The spelling of transformers 4, which 5 reads as well.
  out["rope_theta"] = rope.rope_theta;
  out["rope_scaling"] = nullptr;
  if (rope.rope_type != "yarn") return;
  auto& scaling = out["rope_scaling"];
  scaling = {{"rope_type", "yarn"},
             {"factor", rope.factor},
             {"original_max_position_embeddings", rope.original_max_position_embeddings},
             {"beta_fast", rope.beta_fast},
             {"beta_slow", rope.beta_slow}};
  if (rope.mscale > 0) scaling["mscale"] = rope.mscale;
  if (rope.mscale_all_dim > 0) scaling["mscale_all_dim"] = rope.mscale_all_dim;
}

void write_deepseek(const ModelConfig& model, nlohmann::ordered_json& out) {
  out["num_key_value_heads"] = model.num_attention_heads;
  out["attention_bias"] = false;
  out["q_lora_rank"] = or_null(model.q_lora_rank, 0);
  out["kv_lora_rank"] = model.kv_lora_rank;
  out["qk_nope_head_dim"] = model.qk_nope_head_dim;
  out["qk_rope_head_dim"] = model.qk_rope_head_dim;
  out["v_head_dim"] = model.v_head_dim;
  out["rope_interleave"] = model.rope_interleave;
  out["first_k_dense_replace"] =
      model.n_routed_experts ? model.first_k_dense_replace : model.num_hidden_layers;
  out["moe_intermediate_size"] = model.moe_intermediate_size;
  out["n_routed_experts"] = model.n_routed_experts;
  out["n_shared_experts"] = model.n_shared_experts;
  out["num_experts_per_tok"] = model.num_experts_per_tok;
  out["n_group"] = model.n_group;
  out["topk_group"] = model.topk_group;
  out["norm_topk_prob"] = model.norm_topk_prob;
  out["routed_scaling_factor"] = model.routed_scaling_factor;
  // Not read by transformers, but by the model's own code and by inference engines.
  out["scoring_func"] = model.scoring_func;
  out["topk_method"] = "noaux_tc";
  out["moe_layer_freq"] = 1;
}

void write_qwen(const ModelConfig& model, nlohmann::ordered_json& out) {
  out["num_key_value_heads"] = model.num_key_value_heads;
  out["head_dim"] = model.head_dim ? model.head_dim : model.hidden_size / model.num_attention_heads;
  out["use_sliding_window"] = false;
  if (model.model_type != "qwen2") out["attention_bias"] = false;
  if (model.model_type != "qwen3_moe") return;
  out["num_experts"] = model.n_routed_experts;
  out["num_experts_per_tok"] = model.num_experts_per_tok;
  out["moe_intermediate_size"] = model.moe_intermediate_size;
  out["norm_topk_prob"] = model.norm_topk_prob;
  out["decoder_sparse_step"] = model.decoder_sparse_step;
  out["mlp_only_layers"] = nlohmann::ordered_json::array();
}

const std::pair<const char*, const char*> kArchitectures[] = {
    {"deepseek_v3", "DeepseekV3ForCausalLM"},
    {"qwen2", "Qwen2ForCausalLM"},
    {"qwen3", "Qwen3ForCausalLM"},
    {"qwen3_moe", "Qwen3MoeForCausalLM"}};

}  // namespace

ModelConfig model_config_from_hf(const json& root, const std::string& where) {
  COHORT_CHECK_INPUT(
      root.is_object(), "{}: is no map of fields; want a model's config.json", where);
  Reader reader{root, {where, false}, {}};
  if (!root.contains("model_type"))
    reader.refuse("model_type", "is missing", "want deepseek_v3, qwen2, qwen3 or qwen3_moe");
  reader.set("model.model_type", "model_type", root["model_type"]);
  refuse_other_features(reader);
  reader.config.model = absent_fields(reader.config.model.model_type);
  read_fields(reader);
  read_tokens(reader);
  read_rope(reader);
  validate_model(reader.config.model, Origins(where, "model."));
  check_end_tokens(reader.config.model, where);
  fp8_block_from_hf(root, where);
  return reader.config.model;
}

ModelConfig read_hf_config(const std::string& path) {
  std::error_code ignored;
  const bool is_folder = std::filesystem::is_directory(path, ignored);
  const std::string file_name =
      is_folder ? (std::filesystem::path(path) / "config.json").string() : path;
  COHORT_CHECK_INPUT(std::filesystem::exists(file_name, ignored),
                     "{}: no such file; want a Hugging Face config.json or its folder",
                     file_name);
  ModelConfig model = model_config_from_hf(read_strict_json(file_name), file_name);
  const std::string generation =
      (std::filesystem::path(file_name).parent_path() / "generation_config.json").string();
  if (is_folder && std::filesystem::exists(generation, ignored)) {
    const json root = read_strict_json(generation);
    COHORT_CHECK_INPUT(root.is_object(), "{}: is no map of fields", generation);
    add_end_tokens(token_ids(root, "eos_token_id", generation), model);
    check_end_tokens(model, generation);
  }
  return model;
}

nlohmann::ordered_json model_config_to_hf(const ModelConfig& model) {
  ModelConfig checked = model;
  if (model.uses_mla()) checked.num_key_value_heads = model.num_attention_heads;
  validate_model(checked, Origins("model"));
  nlohmann::ordered_json out;
  for (const auto& [type, architecture] : kArchitectures)
    if (model.model_type == type) out["architectures"] = {architecture};
  out["model_type"] = model.model_type;
  out["vocab_size"] = model.vocab_size;
  out["hidden_size"] = model.hidden_size;
  out["intermediate_size"] = model.intermediate_size;
  out["num_hidden_layers"] = model.num_hidden_layers;
  out["num_attention_heads"] = model.num_attention_heads;
  model.uses_mla() ? write_deepseek(model, out) : write_qwen(model, out);
  out["hidden_act"] = model.hidden_act;
  out["max_position_embeddings"] = model.max_position_embeddings;
  write_rope(model.rope, out);
  out["rms_norm_eps"] = model.rms_norm_eps;
  out["initializer_range"] = model.initializer_range;
  out["attention_dropout"] = 0.0;
  out["tie_word_embeddings"] = model.tie_word_embeddings;
  out["bos_token_id"] = or_null(model.bos_token_id, -1);
  out["eos_token_id"] = or_null(model.eos_token_id, -1);
  if (!model.further_eos_token_ids.empty()) {
    out["eos_token_id"] = {model.eos_token_id};
    for (const int64_t id : model.further_eos_token_ids) out["eos_token_id"].push_back(id);
  }
  out["pad_token_id"] = nullptr;
  out["use_cache"] = true;
  if (model.uses_mla() || model.num_nextn_predict_layers > 0)
    out["num_nextn_predict_layers"] = model.num_nextn_predict_layers;
  if (model.num_nextn_predict_layers > 0 || !model.mtp_embedding_first || !model.mtp_after_norm) {
    out["mtp_embedding_first"] = model.mtp_embedding_first;
    out["mtp_after_norm"] = model.mtp_after_norm;
  }
  return out;
}

std::array<int64_t, 2> fp8_block_from_hf(const json& root, const std::string& where) {
  std::array<int64_t, 2> block{128, 128};
  if (!root.contains("quantization_config") || root["quantization_config"].is_null()) return block;
  const Reader reader{root, {where, false}, {}};
  const json& settings = root["quantization_config"];
  const auto is = [&](const char* name, const json& value) {
    return !settings.contains(name) || settings[name].is_null() || settings[name] == value;
  };
  if (!settings.is_object() || settings.value("quant_method", json()) != "fp8" ||
      !is("fmt", "e4m3"))
    reader.refuse("quantization_config",
                  "is not the fp8 of DeepSeek-V3's checkpoints",
                  "want weights in F32, F16, BF16, or F8_E4M3 in blocks with weight_scale_inv");
  if (is("weight_block_size", nullptr)) return block;
  const json& size = settings["weight_block_size"];
  constexpr int64_t kMost = 1 << 20;
  const auto fits = [](const json& n) { return n.is_number_integer() && n >= 1 && n <= kMost; };
  if (!size.is_array() || size.size() != 2 || !fits(size[0]) || !fits(size[1]))
    reader.refuse("quantization_config.weight_block_size",
                  reader.text(size) + " is no size of a block",
                  "want two whole numbers, as in [128, 128]");
  return {size[0].get<int64_t>(), size[1].get<int64_t>()};
}

}  // namespace cohort::core
