// Every setting of a run, as plain structs with defaults. The YAML file has the same sections and
// keys; the one parser is core/config/parse.h. A component receives its own section only.
#pragma once
#include <algorithm>
#include <array>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace cohort::core {

struct RunConfig {
  std::string dir = "runs/default";  ///< Everything a run writes goes here.
  uint64_t seed = 1;                 ///< Of weights and data order.
  std::string model;  ///< Folder whose weights a run starts from: a checkpoint or a Hugging Face
                      ///< model. Empty: new weights.
  std::string device =
      "auto";  ///< auto | cpu | cuda. auto: cuda when this binary and machine have it, else cpu.
  double timeout_s =
      600;  ///< A collective that takes longer is named and the job is ended. 0: wait for ever.
  friend bool operator==(const RunConfig&, const RunConfig&) = default;
};

struct MeshConfig {
  int dp = 0;  ///< Data-parallel ranks; 0 ("auto" in YAML) = world / pp.
  int ep =
      1;  ///< Ranks over which the experts of a layer are spread; divides dp and n_routed_experts.
  int pp = 1;  ///< Pipeline stages. Only 1 so far: anything else is refused.
  friend bool operator==(const MeshConfig&, const MeshConfig&) = default;
};

/// YaRN (arXiv:2309.00071) as the Hugging Face config spells it (`rope_parameters` or the older
/// `rope_scaling`).
struct RopeConfig {
  std::string rope_type = "default";  ///< default | yarn
  double rope_theta = 10000.0;
  double factor = 1.0;
  int64_t original_max_position_embeddings = 0;
  double beta_fast = 32.0;
  double beta_slow = 1.0;
  double mscale = 0.0;          ///< 0: not given.
  double mscale_all_dim = 0.0;  ///< 0: not given.
  friend bool operator==(const RopeConfig&, const RopeConfig&) = default;
};

/// Field names and meanings are those of the Hugging Face config.json of DeepseekV3ForCausalLM
/// (Qwen ones for GQA models).
struct ModelConfig {
  std::string model_type =
      "deepseek_v3";  ///< deepseek_v3 | qwen2 | qwen3 | qwen3_moe (what config.json says)
  int64_t vocab_size = 4096;
  int64_t hidden_size = 256;
  int64_t intermediate_size = 704;      ///< Of the dense layers' SwiGLU.
  int64_t moe_intermediate_size = 176;  ///< Of one routed expert.
  int64_t num_hidden_layers = 6;
  int64_t num_attention_heads = 4;
  int64_t num_key_value_heads =
      4;  ///< GQA only; MLA has as many as there are heads, which is also what YAML defaults to.
  int64_t head_dim = 0;  ///< GQA only; 0 = hidden_size / num_attention_heads.
  int64_t n_shared_experts = 1;
  int64_t n_routed_experts = 16;  ///< 0: a dense model.
  int64_t num_experts_per_tok = 4;
  int64_t n_group = 1;
  int64_t topk_group = 1;
  bool norm_topk_prob = true;
  double routed_scaling_factor = 1.0;
  std::string scoring_func = "sigmoid";  ///< sigmoid (with selection bias) | softmax
  int64_t first_k_dense_replace = 1;     ///< Layers before this one are dense.
  int64_t decoder_sparse_step = 1;  ///< Qwen3-MoE: a layer is sparse when (index + 1) % step == 0.
  int64_t q_lora_rank = 0;          ///< 0 (null in YAML): queries are projected directly.
  int64_t kv_lora_rank = 64;        ///< 0: GQA attention instead of MLA.
  int64_t qk_nope_head_dim = 48;
  int64_t qk_rope_head_dim = 16;
  int64_t v_head_dim = 64;
  int64_t max_position_embeddings = 1024;
  bool rope_interleave =
      true;  ///< DeepSeek's layout: pairs (2i, 2i+1) rotate. false: halves rotate (Qwen, Llama).
  RopeConfig rope;
  double rms_norm_eps = 1e-6;
  bool attention_bias = false;  ///< Qwen2: true (bias on q, k, v).
  bool qk_norm = false;         ///< Qwen3: RMSNorm on each head of q and k.
  bool tie_word_embeddings = false;
  int64_t num_nextn_predict_layers = 0;  ///< Depth of multi-token prediction.
  /// Order of eh_proj's input: [embedding ; hidden] as in the released checkpoints, or [hidden ;
  /// embedding] as in the report's eq. 21.
  bool mtp_embedding_first = true;
  /// Depth 1 reads the main model's output after its final norm (as transformers does) or before.
  bool mtp_after_norm = true;
  double initializer_range = 0.02;
  int64_t bos_token_id = 0;  ///< -1 (null in YAML): none.
  int64_t eos_token_id = 1;  ///< -1 (null in YAML): none.
  /// What ends a completion too: the rest of the list in config.json and generation_config.json.
  /// No key of the YAML file.
  std::vector<int64_t> further_eos_token_ids;
  std::string hidden_act = "silu";

  bool uses_mla() const { return kv_lora_rank > 0; }
  /// Whether a completion ends with this token.
  bool is_end(int64_t token) const {
    return token == eos_token_id ||
           std::count(further_eos_token_ids.begin(), further_eos_token_ids.end(), token) > 0;
  }
  /// Whether decoder layer `layer_idx` (0-based) holds routed experts.
  bool is_moe_layer(int64_t layer_idx) const {
    return n_routed_experts > 0 && layer_idx >= first_k_dense_replace &&
           (layer_idx + 1) % decoder_sparse_step == 0;
  }
  friend bool operator==(const ModelConfig&, const ModelConfig&) = default;
};

struct RouterConfig {
  double bias_update_speed = 0.001;  ///< gamma of the loss-free balance; 0 turns it off.
  double sequence_loss_alpha =
      0.0001;  ///< alpha of the sequence-wise auxiliary loss; 0 turns it off.
  friend bool operator==(const RouterConfig&, const RouterConfig&) = default;
};

struct DataSource {
  std::string path;     ///< Prefix of a .bin/.idx pair made by `cohort data prepare` (PREFIX,
                        ///< PREFIX.bin or PREFIX.idx); `cohort sft`: a JSONL file of examples.
  double weight = 1.0;  ///< Share of samples, normalised over the sources.
  friend bool operator==(const DataSource&, const DataSource&) = default;
};

struct DataConfig {
  std::vector<DataSource> train;
  std::string validation;  ///< Prefix of the held-out pair, or `cohort sft`'s held-out examples;
                           ///< empty: no validation.
  std::string tokenizer;   ///< tokenizer.json to carry into checkpoints; empty: the one recorded
                           ///< beside the first source, if any.
  int64_t seq_len = 256;   ///< Tokens a model input row.
  friend bool operator==(const DataConfig&, const DataConfig&) = default;
};

struct TrainConfig {
  int64_t steps = 1000;            ///< 0 (null in YAML): epochs tell.
  double epochs = 0;               ///< `cohort sft`: passes over the examples, in place of steps; 0
                                   ///< (null in YAML): steps tell.
  int64_t global_batch = 64;       ///< Sequences a step, over all ranks.
  int64_t micro_batch = 8;         ///< Sequences a forward pass on one rank.
  std::string precision = "fp32";  ///< fp32 | bf16 (fp32 masters) | fp64 (for proofs)
  std::string recompute =
      "none";  ///< none | layer: keep each layer's input only and run it again in backward.
  double mtp_loss_weight = 0.3;  ///< lambda of the multi-token-prediction loss.
  int64_t max_skipped_in_a_row =
      10;  ///< Steps with a non-finite gradient are skipped; so many in a row end the run.
  friend bool operator==(const TrainConfig&, const TrainConfig&) = default;
};

struct OptimizerConfig {
  std::string name = "adamw";  ///< adamw | muon (matrices by Muon, the rest by AdamW)
  double lr = 1e-3;            ///< Peak learning rate.
  std::array<double, 2> betas{0.9, 0.95};
  double eps = 1e-8;
  double weight_decay = 0.1;
  bool decay_vectors = false;  ///< Whether 1-D parameters (norms, biases) decay too.
  double clip = 1.0;           ///< Global gradient norm; 0 turns clipping off.
  double momentum = 0.95;      ///< Muon's.
  double bucket_mb = 32;       ///< Gradients travel in buckets of about this many MiB.
  friend bool operator==(const OptimizerConfig&, const OptimizerConfig&) = default;
};

struct ScheduleConfig {
  std::string name = "warmup_cosine";  ///< warmup_cosine | warmup_linear | warmup_constant
  int64_t warmup_steps = 50;
  double min_lr_ratio = 0.1;  ///< The last step's learning rate over the peak.
  int64_t total_steps = 0;    ///< Steps the schedule is laid out for; 0 = train.steps.
  friend bool operator==(const ScheduleConfig&, const ScheduleConfig&) = default;
};

struct CheckpointConfig {
  int64_t save_every = 100;  ///< Steps; 0: only at the end.
  int64_t keep = 3;          ///< Newest good checkpoints kept; 0: all.
  bool async = true;         ///< Training goes on while a checkpoint is written.
  friend bool operator==(const CheckpointConfig&, const CheckpointConfig&) = default;
};

/// A named component with options of its own: a task or a reward. In YAML a name alone, or a map
/// {name: countdown, count: 3}. The component itself checks its options.
struct NamedOptions {
  std::string name;
  double weight = 1.0;                                ///< Of a reward in the sum; a task has none.
  nlohmann::json options = nlohmann::json::object();  ///< All keys but name and weight.
  friend bool operator==(const NamedOptions&, const NamedOptions&) = default;
};

/// How tokens are drawn.
struct SamplingConfig {
  int64_t max_new_tokens = 64;  ///< Of a completion, the end token included.
  double temperature = 1.0;     ///< Logits are divided by it; 0: the most likely token.
  int64_t top_k = 0;            ///< Draw among the k most likely; 0: all.
  double top_p = 1.0;           ///< Draw among the fewest that hold this probability; 1: all.
  double min_p = 0.0;           ///< Leave out what is less likely than so many times the likeliest.
  std::vector<std::string> stop;  ///< Texts that end a completion; they stay in it.
  friend bool operator==(const SamplingConfig&, const SamplingConfig&) = default;
};

/// GRPO (arXiv:2402.03300, arXiv:2501.12948) and its relatives.
struct RlConfig {
  NamedOptions task;                  ///< See rl/tasks/task.h; `prompt` is its template.
  std::vector<NamedOptions> rewards;  ///< See rl/rewards/builtin.h.
  int64_t prompts_per_step = 16;      ///< Over all ranks, whatever the mesh.
  int64_t group_size = 16;            ///< Completions a prompt (G).
  SamplingConfig sampling;
  std::string loss = "grpo";               ///< grpo | bnpo | dr_grpo | dapo | gspo
  std::string advantage_scale = "group";   ///< group | batch | none: whose deviation divides.
  double clip_low = 0.2, clip_high = 0.2;  ///< The ratio is held in [1 - low, 1 + high].
  double beta = 0.0;            ///< Of the KL term to the reference model; 0: no reference is kept.
  int64_t reference_every = 0;  ///< Steps after which the reference becomes the model; 0: never.
  int64_t passes = 1;           ///< mu: passes over a rollout.
  int64_t mini_batches = 1;     ///< Updates a pass.
  std::string truncated = "keep";  ///< keep | mask: completions cut by max_new_tokens.
  int64_t refill_rounds = 0;  ///< Dynamic sampling: groups whose rewards are all equal are drawn
                              ///< anew from further prompts, up to so many rounds.
  int64_t eval_every = 20;    ///< Steps between evaluations on held-out problems; 0: never.
  int64_t eval_problems = 512;
  int64_t eval_samples = 1;   ///< Completions a problem.
  int64_t max_running = 256;  ///< Sequences that decode at once on a rank.
  int64_t cache_tokens = 0;   ///< Capacity of a rank's KV cache; 0: what max_running needs.
  friend bool operator==(const RlConfig&, const RlConfig&) = default;
};

/// `cohort sample`: completions of rl.task drawn by run.model, those that rl.rewards find good kept
/// as examples (rejection sampling, as in DeepSeek-R1, arXiv:2501.12948, section 2.3.3).
struct SampleConfig {
  std::string out;              ///< JSONL file of examples; its folder is made. Empty: not given.
  std::string split = "train";  ///< train | test
  int64_t prompts = 1000;       ///< Different problems; 0 (null in YAML): all that a file has.
  int64_t samples_per_prompt = 16;  ///< Completions a problem.
  /// Least reward (the weighted sum) of what is kept; -infinity (null in YAML): no threshold.
  double keep_at_least = 1.0;
  int64_t keep_per_prompt = 0;    ///< At most so many completions a problem; 0: all.
  std::string choose = "best";    ///< best | random: which, where there are more.
  bool deduplicate = true;        ///< Of equal completions of a problem, white space aside, one.
  bool keep_truncated = false;    ///< Whether completions cut by max_new_tokens may be kept.
  int64_t top_logprobs = 0;       ///< So many likeliest tokens are stored with each token; 0: none.
  int64_t prompts_per_part = 64;  ///< Problems between two saves, over all ranks.
  friend bool operator==(const SampleConfig&, const SampleConfig&) = default;
};

/// Logit distillation: rl/sft_loss.h has the equation.
struct DistillConfig {
  double weight = 0;  ///< Of the divergence; 1 - weight is the cross-entropy's. 0: none.
  std::string divergence = "forward_kl";  ///< forward_kl | reverse_kl
  double temperature = 1.0;               ///< Both distributions are softened by it.
  friend bool operator==(const DistillConfig&, const DistillConfig&) = default;
};

/// Supervised fine-tuning, beyond what every training run has.
struct SftConfig {
  DistillConfig distill;
  friend bool operator==(const SftConfig&, const SftConfig&) = default;
};

struct LogConfig {
  int64_t every = 1;             ///< Steps a line of metrics.jsonl.
  int64_t validate_every = 100;  ///< Steps; 0: only at the end. Needs data.validation.
  int64_t validate_batches = 0;  ///< Global batches a validation; 0: the whole held-out set.
  int64_t samples_every = 10;    ///< RL: steps between steps that write samples.jsonl.
  friend bool operator==(const LogConfig&, const LogConfig&) = default;
};

struct Config {
  RunConfig run;
  MeshConfig mesh;
  ModelConfig model;
  RouterConfig router;
  DataConfig data;
  TrainConfig train;
  OptimizerConfig optimizer;
  ScheduleConfig schedule;
  CheckpointConfig checkpoint;
  LogConfig log;
  RlConfig rl;
  SampleConfig sample;
  SftConfig sft;
  friend bool operator==(const Config&, const Config&) = default;
};

}  // namespace cohort::core
