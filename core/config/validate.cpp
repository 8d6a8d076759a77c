#include "core/config/validate.h"

#include <ATen/detail/CUDAHooksInterface.h>

#include "core/base/error.h"
#include "core/config/values.h"

namespace cohort::core {
namespace {

/// Every key that fix_model_type sets must have that value.
void check_model_type(const ModelConfig& model, const Origins& origins) {
  Config given, fixed;
  given.model = fixed.model = model;
  fix_model_type(fixed.model);
  for (const Field& field : fields()) {
    if (!field.key.starts_with("model.")) continue;
    const std::string value = value_text(field, given), right = value_text(field, fixed);
    COHORT_CHECK_INPUT(
        value == right,
        "{}: {} does not fit a {} model; leave the key out (it is {} there) or choose "
        "another model.model_type",
        origins.blame({field.key, "model.model_type"}),
        value,
        model.model_type,
        right);
  }
  COHORT_CHECK_INPUT(model.model_type != "deepseek_v3" || model.kv_lora_rank > 0,
                     "{}: a deepseek_v3 model has latent attention; want kv_lora_rank >= 1, or a "
                     "Qwen model_type for grouped-query attention",
                     origins.blame({"model.kv_lora_rank"}));
  COHORT_CHECK_INPUT(model.model_type != "qwen3_moe" || model.n_routed_experts > 0,
                     "{}: a qwen3_moe model has routed experts; want n_routed_experts >= 1, or "
                     "model_type: qwen3",
                     origins.blame({"model.n_routed_experts"}));
}

void check_attention(const ModelConfig& model, const Origins& origins) {
  if (model.uses_mla()) {
    COHORT_CHECK_INPUT(model.qk_rope_head_dim % 2 == 0,
                       "{}: {} is odd; positions rotate pairs: want an even number",
                       origins.blame({"model.qk_rope_head_dim"}),
                       model.qk_rope_head_dim);
    return;
  }
  COHORT_CHECK_INPUT(model.num_attention_heads % model.num_key_value_heads == 0,
                     "{}: num_attention_heads {} is no multiple of num_key_value_heads {}; want a "
                     "divisor of {}",
                     origins.blame({"model.num_key_value_heads", "model.num_attention_heads"}),
                     model.num_attention_heads,
                     model.num_key_value_heads,
                     model.num_attention_heads);
  COHORT_CHECK_INPUT(model.head_dim > 0 || model.hidden_size % model.num_attention_heads == 0,
                     "{}: hidden_size {} is no multiple of num_attention_heads {}; change one, or "
                     "give head_dim",
                     origins.blame({"model.num_attention_heads", "model.hidden_size"}),
                     model.hidden_size,
                     model.num_attention_heads);
  const int64_t head_dim =
      model.head_dim ? model.head_dim : model.hidden_size / model.num_attention_heads;
  COHORT_CHECK_INPUT(head_dim >= 2 && head_dim % 2 == 0,
                     "{}: heads of {} cannot be rotated in pairs; want an even head_dim",
                     origins.blame({"model.head_dim", "model.num_attention_heads"}),
                     head_dim);
}

void check_rope(const ModelConfig& model, const Origins& origins) {
  const RopeConfig& rope = model.rope;
  const std::string section = "model.rope_parameters.";
  if (rope.rope_type != "yarn") {
    COHORT_CHECK_INPUT(rope.factor == 1.0,
                       "{}: {} has no effect without yarn; add rope_type: yarn or leave factor out",
                       origins.blame({section + "factor"}),
                       rope.factor);
    return;
  }
  COHORT_CHECK_INPUT(
      rope.original_max_position_embeddings > 0,
      "{}: yarn stretches a known context; want its length in tokens",
      origins.blame({section + "original_max_position_embeddings", section + "rope_type"}));
  COHORT_CHECK_INPUT(rope.beta_fast > rope.beta_slow,
                     "{}: beta_fast {} is not above beta_slow {}; usual are 32 and 1",
                     origins.blame({section + "beta_fast", section + "beta_slow"}),
                     rope.beta_fast,
                     rope.beta_slow);
}

void check_experts(const ModelConfig& model, const Origins& origins) {
  COHORT_CHECK_INPUT(model.first_k_dense_replace <= model.num_hidden_layers,
                     "{}: {} dense layers of {} in all; want at most {}",
                     origins.blame({"model.first_k_dense_replace", "model.num_hidden_layers"}),
                     model.first_k_dense_replace,
                     model.num_hidden_layers,
                     model.num_hidden_layers);
  const int64_t experts = model.n_routed_experts;
  if (experts == 0) return;
  COHORT_CHECK_INPUT(
      experts % model.n_group == 0,
      "{}: {} experts do not fall into {} equal groups; want an n_group that divides "
      "n_routed_experts",
      origins.blame({"model.n_group", "model.n_routed_experts"}),
      experts,
      model.n_group);
  COHORT_CHECK_INPUT(model.topk_group <= model.n_group,
                     "{}: {} groups to choose of {}; want a topk_group of at most n_group",
                     origins.blame({"model.topk_group", "model.n_group"}),
                     model.topk_group,
                     model.n_group);
  const int64_t eligible = experts / model.n_group * model.topk_group;
  COHORT_CHECK_INPUT(
      model.num_experts_per_tok <= eligible,
      "{}: a token wants {} experts, but its topk_group {} of {} groups hold {}; want "
      "num_experts_per_tok <= {}",
      origins.blame({"model.num_experts_per_tok",
                     "model.topk_group",
                     "model.n_group",
                     "model.n_routed_experts"}),
      model.num_experts_per_tok,
      model.topk_group,
      model.n_group,
      eligible,
      eligible);
}

void check_mesh(const Config& config, const Origins& origins) {
  const MeshConfig& mesh = config.mesh;
  const int64_t experts = config.model.n_routed_experts;
  COHORT_CHECK_INPUT(mesh.pp == 1,
                     "{}: {} pipeline stages are more than this version has; want pp: 1",
                     origins.blame({"mesh.pp"}),
                     mesh.pp);
  COHORT_CHECK_INPUT(experts > 0 || mesh.ep == 1,
                     "{}: a dense model has no experts to spread over {} ranks; want ep: 1",
                     origins.blame({"mesh.ep", "model.n_routed_experts"}),
                     mesh.ep);
  COHORT_CHECK_INPUT(
      experts % mesh.ep == 0,
      "{}: {} experts cannot be spread evenly over {} ranks; want an ep that divides "
      "n_routed_experts",
      origins.blame({"mesh.ep", "model.n_routed_experts"}),
      experts,
      mesh.ep);
  COHORT_CHECK_INPUT(mesh.dp % mesh.ep == 0,
                     "{}: dp {} is no multiple of ep {}; want an ep that divides dp",
                     origins.blame({"mesh.ep", "mesh.dp"}),
                     mesh.dp,
                     mesh.ep);
}

void check_batch(const Config& config, const Origins& origins) {
  const TrainConfig& train = config.train;
  COHORT_CHECK_INPUT(train.global_batch % train.micro_batch == 0,
                     "{}: global_batch {} is no multiple of micro_batch {}; want a divisor of {}",
                     origins.blame({"train.micro_batch", "train.global_batch"}),
                     train.global_batch,
                     train.micro_batch,
                     train.global_batch);
  const int64_t at_once = config.mesh.dp * train.micro_batch;
  COHORT_CHECK_INPUT(at_once == 0 || train.global_batch % at_once == 0,
                     "{}: global_batch {} is no multiple of dp x micro_batch = {} x {}; want a "
                     "multiple of {}",
                     origins.blame({"train.global_batch", "train.micro_batch", "mesh.dp"}),
                     train.global_batch,
                     config.mesh.dp,
                     train.micro_batch,
                     at_once);
}

void check_length(const TrainConfig& train, const Origins& origins) {
  COHORT_CHECK_INPUT(train.steps == 0 || train.epochs == 0,
                     "{}: a run is {} steps or {} epochs long, not both; want one, the other null",
                     origins.blame({"train.epochs", "train.steps"}),
                     train.steps,
                     train.epochs);
  COHORT_CHECK_INPUT(train.steps > 0 || train.epochs > 0,
                     "{}: neither steps nor epochs tell how long the run is; want train.steps >= 1",
                     origins.blame({"train.steps", "train.epochs"}));
}

void check_sequence(const Config& config, const Origins& origins) {
  const int64_t seq_len = config.data.seq_len;
  const ModelConfig& model = config.model;
  COHORT_CHECK_INPUT(
      seq_len <= model.max_position_embeddings,
      "{}: sequences of {} tokens exceed max_position_embeddings {}; want at most {}",
      origins.blame({"data.seq_len", "model.max_position_embeddings"}),
      seq_len,
      model.max_position_embeddings,
      model.max_position_embeddings);
  COHORT_CHECK_INPUT(model.num_nextn_predict_layers < seq_len,
                     "{}: predicting {} tokens further needs longer sequences than {}; want a "
                     "seq_len above num_nextn_predict_layers",
                     origins.blame({"model.num_nextn_predict_layers", "data.seq_len"}),
                     model.num_nextn_predict_layers,
                     seq_len);
}

void check_rl(const Config& config, const Origins& origins) {
  const RlConfig& rl = config.rl;
  COHORT_CHECK_INPUT(rl.prompts_per_step % rl.mini_batches == 0,
                     "{}: {} prompts a step do not fall into {} equal updates of whole groups; "
                     "want mini_batches that divide prompts_per_step",
                     origins.blame({"rl.mini_batches", "rl.prompts_per_step"}),
                     rl.prompts_per_step,
                     rl.mini_batches);
  for (size_t i = 0; i < rl.rewards.size(); ++i)
    COHORT_CHECK_INPUT(!rl.rewards[i].name.empty(),
                       "{}: reward {} has no name; want rl.rewards.{}.name",
                       origins.blame({"rl.rewards"}),
                       i,
                       i);
  COHORT_CHECK_INPUT(!rl.task.name.empty() || rl.task.options.empty(),
                     "{}: there are options but no task; want rl.task.name",
                     origins.blame({"rl.task"}));
  if (rl.task.name.empty()) return;  // the rest limits runs that generate
  COHORT_CHECK_INPUT(rl.sampling.max_new_tokens < config.model.max_position_embeddings,
                     "{}: {} new tokens leave no room for a prompt within max_position_embeddings "
                     "{}; want at most {}",
                     origins.blame({"rl.sampling.max_new_tokens", "model.max_position_embeddings"}),
                     rl.sampling.max_new_tokens,
                     config.model.max_position_embeddings,
                     config.model.max_position_embeddings - 1);
  COHORT_CHECK_INPUT(rl.cache_tokens == 0 || rl.cache_tokens > rl.sampling.max_new_tokens,
                     "{}: a cache of {} tokens does not hold one sequence; want more than "
                     "sampling.max_new_tokens {}, or 0 for what max_running needs",
                     origins.blame({"rl.cache_tokens", "rl.sampling.max_new_tokens"}),
                     rl.cache_tokens,
                     rl.sampling.max_new_tokens);
}

void check_sample(const Config& config, const Origins& origins) {
  const SampleConfig& sample = config.sample;
  if (!sample.out.empty())
    COHORT_CHECK_INPUT(sample.out.ends_with(".jsonl") && !sample.out.ends_with("/.jsonl"),
                       "{}: '{}' is no name of a JSONL file; want one that ends in .jsonl",
                       origins.blame({"sample.out"}),
                       sample.out);
  COHORT_CHECK_INPUT(sample.keep_per_prompt <= sample.samples_per_prompt,
                     "{}: {} of {} completions cannot be kept; want at most samples_per_prompt",
                     origins.blame({"sample.keep_per_prompt", "sample.samples_per_prompt"}),
                     sample.keep_per_prompt,
                     sample.samples_per_prompt);
  COHORT_CHECK_INPUT(sample.top_logprobs <= config.model.vocab_size,
                     "{}: {} likeliest tokens of a vocabulary of {}; want at most vocab_size",
                     origins.blame({"sample.top_logprobs", "model.vocab_size"}),
                     sample.top_logprobs,
                     config.model.vocab_size);
}

void check_device(const Config& config, const Origins& origins) {
  if (config.run.device != "cuda") return;
  // Whether each rank has a GPU is seen once all ranks are up (distributed/device_choice.h).
  COHORT_CHECK_INPUT(at::CUDAHooksRegistry()->Has("CUDAHooks"),
                     "{}: this binary was built without CUDA; use run.device=cpu or auto, or build "
                     "the preset cuda",
                     origins.blame({"run.device"}));
}

}  // namespace

Origins::Origins(std::string name, std::string prefix)
    : name_(std::move(name)), prefix_(std::move(prefix)) {}

void Origins::record(const std::string& key, std::string text, bool is_override) {
  places_[key] = {std::move(text), is_override};
}

std::string Origins::blame(std::initializer_list<std::string> keys) const {
  const PlaceOf* found = nullptr;
  for (const std::string& key : keys) {
    const auto place = places_.find(key);
    if (place == places_.end()) continue;
    if (!found || (place->second.is_override && !found->is_override)) found = &place->second;
  }
  if (found) return found->text;
  const std::string& key = *keys.begin();
  const auto from = places_.find(kFromKey);  // a value that came with the config.json
  const std::string place =
      from != places_.end() && key.starts_with("model.") ? from->second.text : name_;
  return place + ": " + (key.starts_with(prefix_) ? key.substr(prefix_.size()) : key);
}

void fix_model_type(ModelConfig& model) {
  if (model.model_type == "deepseek_v3") {
    model.num_key_value_heads = model.num_attention_heads;
    model.head_dim = 0;
    model.scoring_func = "sigmoid";
    model.decoder_sparse_step = 1;
    model.attention_bias = model.qk_norm = false;
    return;
  }
  model.kv_lora_rank = model.q_lora_rank = 0;
  model.rope_interleave = false;
  model.attention_bias = model.model_type == "qwen2";
  model.qk_norm = model.model_type != "qwen2";
  model.n_shared_experts = model.first_k_dense_replace = 0;
  model.n_group = model.topk_group = 1;
  model.scoring_func = "softmax";
  model.routed_scaling_factor = 1.0;
  if (model.model_type == "qwen3_moe") return;
  model.n_routed_experts = 0;
  model.decoder_sparse_step = 1;
}

void validate_model(const ModelConfig& model, const Origins& origins) {
  check_model_type(model, origins);
  check_attention(model, origins);
  check_rope(model, origins);
  check_experts(model, origins);
  for (const auto& [key, id] : {std::pair{"model.bos_token_id", model.bos_token_id},
                                std::pair{"model.eos_token_id", model.eos_token_id}})
    COHORT_CHECK_INPUT(id < model.vocab_size,
                       "{}: token {} is outside the vocabulary; want less than vocab_size {}",
                       origins.blame({key, "model.vocab_size"}),
                       id,
                       model.vocab_size);
}

void validate(const Config& config, const Origins& origins) {
  validate_model(config.model, origins);
  check_mesh(config, origins);
  // A run that generates what it learns from has no rows of data.
  const bool generates = !config.rl.task.name.empty() || !config.rl.rewards.empty();
  if (!generates || !config.data.train.empty()) {
    check_batch(config, origins);
    check_sequence(config, origins);
  }
  check_length(config.train, origins);
  check_device(config, origins);
  check_rl(config, origins);
  check_sample(config, origins);
  for (size_t i = 0; i < config.data.train.size(); ++i)
    COHORT_CHECK_INPUT(!config.data.train[i].path.empty(),
                       "{}: token set {} has no path; want data.train.{}.path",
                       origins.blame({"data.train"}),
                       i,
                       i);
}

}  // namespace cohort::core
