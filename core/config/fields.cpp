#include "core/config/fields.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace cohort::core {
namespace {

// Upper ends are far above any real model and keep products of two or three sizes inside int64.
constexpr double kMaxDim = 1 << 20, kMaxTokens = 1 << 24, kMaxExperts = 1 << 16, kMaxLayers = 10000,
                 kMaxRanks = 1 << 20, kMaxCount = 1e12;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

Allowed anything() { return {}; }
Allowed from_to(double low, double high) {
  return {.low = low, .high = high, .choices = {}, .word = {}};
}
Allowed at_least(double low) { return {.low = low, .choices = {}, .word = {}}; }
Allowed above(double low) { return {.low = low, .low_open = true, .choices = {}, .word = {}}; }
Allowed from_to_below(double low, double high) {
  return {.low = low, .high = high, .high_open = true, .choices = {}, .word = {}};
}
Allowed from_above_to(double low, double high) {
  return {.low = low, .high = high, .low_open = true, .choices = {}, .word = {}};
}
Allowed one_of(std::vector<std::string> choices) {
  return {.choices = std::move(choices), .word = {}};
}
Allowed count_from(double low) { return from_to(low, kMaxCount); }
Allowed dim_from(double low) { return from_to(low, kMaxDim); }
Allowed or_word(Allowed allowed, const char* word, double value) {
  allowed.word = {word, value};
  return allowed;
}
Allowed or_null(Allowed allowed, double value = 0) {
  return or_word(std::move(allowed), "null", value);
}

// Key and member are the same path, but for model.rope, which Hugging Face calls rope_parameters.
#define COHORT_FIELD(member, allowed, meaning)                                  \
  {                                                                             \
#member, [](Config & c) -> FieldRef { return &c.member; }, allowed, meaning \
  }
#define COHORT_ROPE_FIELD(member, allowed, meaning)                                               \
  {                                                                                               \
    "model.rope_parameters." #member, [](Config& c) -> FieldRef { return &c.model.rope.member; }, \
        allowed, meaning                                                                          \
  }

std::vector<Field> run_fields() {
  return {
      COHORT_FIELD(run.dir, anything(), "folder that gets everything a run writes"),
      COHORT_FIELD(run.seed, anything(), "seed of the initial weights and of the data order"),
      COHORT_FIELD(run.model,
                   or_null(anything()),
                   "folder of the weights to start from (checkpoint, run or Hugging Face model); "
                   "model: starts from its config.json; null: new weights"),
      COHORT_FIELD(run.device,
                   one_of({"auto", "cpu", "cuda"}),
                   "where tensors live; auto: cuda when binary and machine have it, else cpu"),
      COHORT_FIELD(
          run.timeout_s,
          at_least(0),
          "seconds after which a stuck collective is named and ends the job; 0: wait for ever"),
      COHORT_FIELD(mesh.dp,
                   or_word(from_to(1, kMaxRanks), "auto", 0),
                   "data-parallel ranks; auto: all ranks / pp"),
      COHORT_FIELD(
          mesh.ep,
          from_to(1, kMaxRanks),
          "ranks over which a layer's experts are spread; divides dp and n_routed_experts"),
      COHORT_FIELD(mesh.pp, from_to(1, kMaxRanks), "pipeline stages; only 1 so far"),
  };
}

std::vector<Field> model_fields() {
  return {
      COHORT_FIELD(model.model_type,
                   one_of({"deepseek_v3", "qwen2", "qwen3", "qwen3_moe"}),
                   "architecture, as in config.json; decides attention, router and norms"),
      COHORT_FIELD(
          model.vocab_size, from_to(2, kMaxTokens), "token ids the embedding and the head know"),
      COHORT_FIELD(model.hidden_size, dim_from(1), "width of the residual stream"),
      COHORT_FIELD(model.intermediate_size, dim_from(1), "inner width of a dense layer's SwiGLU"),
      COHORT_FIELD(model.moe_intermediate_size, dim_from(1), "inner width of one routed expert"),
      COHORT_FIELD(model.num_hidden_layers,
                   from_to(1, kMaxLayers),
                   "decoder layers, without those of multi-token prediction"),
      COHORT_FIELD(model.num_attention_heads, from_to(1, kMaxExperts), "query heads"),
      COHORT_FIELD(
          model.num_key_value_heads,
          from_to(1, kMaxExperts),
          "key/value heads of GQA; MLA has as many as query heads (default: num_attention_heads)"),
      COHORT_FIELD(model.head_dim,
                   or_null(dim_from(0)),
                   "size of a GQA head; 0: hidden_size / num_attention_heads"),
      COHORT_FIELD(model.n_shared_experts, from_to(0, kMaxExperts), "experts that see every token"),
      COHORT_FIELD(model.n_routed_experts,
                   from_to(0, kMaxExperts),
                   "routed experts of a sparse layer; 0: a dense model"),
      COHORT_FIELD(model.num_experts_per_tok,
                   from_to(1, kMaxExperts),
                   "routed experts a token goes to (top-k)"),
      COHORT_FIELD(model.n_group,
                   from_to(1, kMaxExperts),
                   "groups the experts fall into; a token may use topk_group of them"),
      COHORT_FIELD(model.topk_group, from_to(1, kMaxExperts), "groups a token may use"),
      COHORT_FIELD(
          model.norm_topk_prob, anything(), "whether a token's gate values are scaled to sum to 1"),
      COHORT_FIELD(model.routed_scaling_factor, above(0), "factor on the gate values"),
      COHORT_FIELD(model.scoring_func,
                   one_of({"sigmoid", "softmax"}),
                   "router scores; sigmoid has the selection bias"),
      COHORT_FIELD(
          model.first_k_dense_replace, from_to(0, kMaxLayers), "first layers that are dense"),
      COHORT_FIELD(model.decoder_sparse_step,
                   from_to(1, kMaxLayers),
                   "Qwen3-MoE: layer i (from 0) is sparse when (i + 1) % step is 0"),
      COHORT_FIELD(
          model.q_lora_rank, or_null(dim_from(0)), "rank of the query compression of MLA; 0: none"),
      COHORT_FIELD(model.kv_lora_rank,
                   or_null(dim_from(0)),
                   "rank of the key/value compression of MLA; 0: GQA instead"),
      COHORT_FIELD(
          model.qk_nope_head_dim, dim_from(1), "part of an MLA query/key head without position"),
      COHORT_FIELD(
          model.qk_rope_head_dim, dim_from(2), "part of an MLA query/key head that rotates; even"),
      COHORT_FIELD(model.v_head_dim, dim_from(1), "size of an MLA value head"),
      COHORT_FIELD(model.max_position_embeddings,
                   from_to(1, kMaxTokens),
                   "longest sequence the model is meant for, in tokens"),
      COHORT_FIELD(model.rope_interleave,
                   anything(),
                   "true: neighbours (2i, 2i+1) rotate together; false: i and i + dim/2"),
      COHORT_ROPE_FIELD(rope_type, one_of({"default", "yarn"}), "how positions are stretched"),
      COHORT_ROPE_FIELD(rope_theta, above(0), "base of the rotation frequencies"),
      COHORT_ROPE_FIELD(factor, at_least(1), "yarn: how many times longer contexts get"),
      COHORT_ROPE_FIELD(original_max_position_embeddings,
                        from_to(0, kMaxTokens),
                        "yarn: context before stretching, in tokens"),
      COHORT_ROPE_FIELD(beta_fast,
                        above(0),
                        "yarn: rotations over the original context above which a frequency stays"),
      COHORT_ROPE_FIELD(
          beta_slow, above(0), "yarn: rotations below which a frequency is divided by factor"),
      COHORT_ROPE_FIELD(
          mscale, or_null(at_least(0)), "yarn: weight of the attention factor; 0: not given"),
      COHORT_ROPE_FIELD(
          mscale_all_dim, or_null(at_least(0)), "yarn: weight of the softmax factor; 0: not given"),
      COHORT_FIELD(model.rms_norm_eps, above(0), "added to the mean square in RMSNorm"),
      COHORT_FIELD(model.attention_bias, anything(), "bias on q, k, v (Qwen2)"),
      COHORT_FIELD(model.qk_norm, anything(), "RMSNorm on every head of q and k (Qwen3)"),
      COHORT_FIELD(
          model.tie_word_embeddings, anything(), "whether the head reuses the embedding's weights"),
      COHORT_FIELD(model.num_nextn_predict_layers,
                   from_to(0, 64),
                   "depth of multi-token prediction; 0: none"),
      COHORT_FIELD(model.mtp_embedding_first,
                   anything(),
                   "eh_proj reads [embedding ; hidden] (released checkpoints); false: [hidden ; "
                   "embedding] (report, eq. 21)"),
      COHORT_FIELD(
          model.mtp_after_norm,
          anything(),
          "the first prediction module reads the main output after the final norm; false: before"),
      COHORT_FIELD(model.initializer_range, above(0), "standard deviation of the initial weights"),
      COHORT_FIELD(model.bos_token_id,
                   or_null(from_to(-1, kMaxTokens), -1),
                   "token that begins a document; -1: none"),
      COHORT_FIELD(model.eos_token_id,
                   or_null(from_to(-1, kMaxTokens), -1),
                   "token that ends a document; -1: none"),
      COHORT_FIELD(model.hidden_act, one_of({"silu"}), "activation of the SwiGLU"),
  };
}

std::vector<Field> training_fields() {
  return {
      COHORT_FIELD(
          router.bias_update_speed,
          at_least(0),
          "gamma: how far an expert's selection bias moves a step; 0: loss-free balance off"),
      COHORT_FIELD(router.sequence_loss_alpha,
                   at_least(0),
                   "alpha: weight of the sequence-wise balance loss; 0: off"),
      COHORT_FIELD(
          data.train,
          anything(),
          "token sets made by `cohort data prepare` (sft: JSONL files of examples), with their "
          "shares of the samples"),
      COHORT_FIELD(data.validation,
                   or_null(anything()),
                   "prefix of the held-out token set (sft: a JSONL file); null: no validation"),
      COHORT_FIELD(
          data.tokenizer,
          or_null(anything()),
          "tokenizer.json to carry into checkpoints; null: the one beside the first token set"),
      COHORT_FIELD(data.seq_len,
                   from_to(1, kMaxTokens),
                   "tokens a sequence (default: at most model.max_position_embeddings)"),
      COHORT_FIELD(
          train.steps, or_null(count_from(1)), "optimizer steps; null: train.epochs tells"),
      COHORT_FIELD(train.epochs,
                   or_null(from_above_to(0, 10000)),
                   "sft: passes over all examples, in place of train.steps; null: none"),
      COHORT_FIELD(train.global_batch, from_to(1, kMaxTokens), "sequences a step, over all ranks"),
      COHORT_FIELD(
          train.micro_batch, from_to(1, kMaxTokens), "sequences a forward pass of one rank"),
      COHORT_FIELD(train.precision,
                   one_of({"fp32", "bf16", "fp64"}),
                   "of weights and activations; bf16 keeps fp32 masters, fp64 is for proofs"),
      COHORT_FIELD(train.recompute,
                   one_of({"none", "layer"}),
                   "layer: keep only each layer's input and run it again in backward"),
      COHORT_FIELD(
          train.mtp_loss_weight, at_least(0), "lambda: weight of the multi-token-prediction loss"),
      COHORT_FIELD(train.max_skipped_in_a_row,
                   count_from(1),
                   "steps with a non-finite gradient are skipped; so many in a row end the run"),
      COHORT_FIELD(
          optimizer.name, one_of({"adamw", "muon"}), "muon: matrices by Muon, the rest by AdamW"),
      COHORT_FIELD(optimizer.lr, above(0), "peak learning rate"),
      COHORT_FIELD(optimizer.betas,
                   from_to_below(0, 1),
                   "AdamW's decay of the first and the second moment, a step"),
      COHORT_FIELD(optimizer.eps, above(0), "AdamW's epsilon"),
      COHORT_FIELD(
          optimizer.weight_decay, at_least(0), "decoupled weight decay, times the learning rate"),
      COHORT_FIELD(optimizer.decay_vectors, anything(), "whether norms and biases decay too"),
      COHORT_FIELD(optimizer.clip, at_least(0), "largest global gradient norm; 0: no clipping"),
      COHORT_FIELD(optimizer.momentum, from_to_below(0, 1), "Muon's momentum"),
      COHORT_FIELD(optimizer.bucket_mb, above(0), "MiB of gradients that travel together"),
      COHORT_FIELD(schedule.name,
                   one_of({"warmup_cosine", "warmup_linear", "warmup_constant"}),
                   "shape of the learning rate over the steps"),
      COHORT_FIELD(schedule.warmup_steps,
                   count_from(0),
                   "steps over which the learning rate rises to its peak"),
      COHORT_FIELD(
          schedule.min_lr_ratio, from_to(0, 1), "learning rate of the last step, over the peak"),
      COHORT_FIELD(schedule.total_steps,
                   count_from(0),
                   "steps the schedule is laid out for; 0: train.steps"),
      COHORT_FIELD(
          checkpoint.save_every, count_from(0), "steps between checkpoints; 0: only at the end"),
      COHORT_FIELD(checkpoint.keep, count_from(0), "newest good checkpoints kept; 0: all"),
      COHORT_FIELD(
          checkpoint.async, anything(), "whether training goes on while a checkpoint is written"),
      COHORT_FIELD(log.every, count_from(1), "steps between lines of metrics.jsonl"),
      COHORT_FIELD(
          log.validate_every, count_from(0), "steps between validations; 0: only at the end"),
      COHORT_FIELD(log.validate_batches,
                   count_from(0),
                   "global batches a validation; 0: the whole held-out set"),
      COHORT_FIELD(log.samples_every, count_from(1), "RL: steps between lines of samples.jsonl"),
  };
}

std::vector<Field> sample_fields() {
  return {
      COHORT_FIELD(sample.out,
                   or_null(anything()),
                   "JSONL file that gets the completions kept; cohort sft reads it"),
      COHORT_FIELD(sample.split, one_of({"train", "test"}), "problems of rl.task that are drawn"),
      COHORT_FIELD(sample.prompts,
                   or_null(from_to(1, kMaxTokens)),
                   "different problems, from the split's first on; null: all of a task of files"),
      COHORT_FIELD(
          sample.samples_per_prompt, from_to(1, kMaxExperts), "completions drawn for a problem"),
      COHORT_FIELD(sample.keep_at_least,
                   or_null(from_to(-kMaxCount, kMaxCount), -kInfinity),
                   "least weighted sum of rewards of what is kept; null: anything is"),
      COHORT_FIELD(sample.keep_per_prompt,
                   from_to(0, kMaxExperts),
                   "most completions kept of a problem; 0: all"),
      COHORT_FIELD(sample.choose,
                   one_of({"best", "random"}),
                   "which are kept, where there are more: the best rewarded, or any by the seed"),
      COHORT_FIELD(sample.deduplicate,
                   anything(),
                   "keep one of a problem's completions that differ in white space only"),
      COHORT_FIELD(sample.keep_truncated,
                   anything(),
                   "whether completions cut by rl.sampling.max_new_tokens may be kept"),
      COHORT_FIELD(sample.top_logprobs,
                   from_to(0, 1024),
                   "likeliest tokens stored with each token, for sft.distill; 0: none"),
      COHORT_FIELD(sample.prompts_per_part,
                   from_to(1, kMaxTokens),
                   "problems between two saves, over all ranks: what a kill costs at most"),
      COHORT_FIELD(sft.distill.weight,
                   from_to(0, 1),
                   "share of the divergence from the stored likeliest tokens in the loss; 0: none"),
      COHORT_FIELD(sft.distill.divergence,
                   one_of({"forward_kl", "reverse_kl"}),
                   "KL(teacher || student), or KL(student || teacher)"),
      COHORT_FIELD(sft.distill.temperature,
                   above(0),
                   "softens teacher and student; the divergence is multiplied by its square"),
  };
}

std::vector<Field> rl_fields() {
  return {
      COHORT_FIELD(rl.task,
                   or_null(anything()),
                   "where problems come from (arithmetic, countdown, jsonl), its options, seed and "
                   "prompt template"),
      COHORT_FIELD(rl.rewards,
                   anything(),
                   "rules whose weighted sum scores a completion: format, math_answer, countdown, "
                   "exact, length, language, code_tests, command"),
      COHORT_FIELD(rl.prompts_per_step, from_to(1, kMaxTokens), "problems a step, over all ranks"),
      COHORT_FIELD(rl.group_size, from_to(2, kMaxExperts), "G: completions a problem"),
      COHORT_FIELD(rl.sampling.max_new_tokens,
                   from_to(1, kMaxTokens),
                   "longest completion, in tokens, the end token included"),
      COHORT_FIELD(rl.sampling.temperature,
                   at_least(0),
                   "logits are divided by it; 0: the most likely token"),
      COHORT_FIELD(rl.sampling.top_k,
                   from_to(0, kMaxTokens),
                   "draw among so many of the most likely tokens; 0: all"),
      COHORT_FIELD(rl.sampling.top_p,
                   from_above_to(0, 1),
                   "draw among the fewest tokens that hold this probability; 1: all"),
      COHORT_FIELD(rl.sampling.min_p,
                   from_to_below(0, 1),
                   "leave out tokens less likely than so many times the likeliest"),
      COHORT_FIELD(rl.sampling.stop, anything(), "texts that end a completion; they stay in it"),
      COHORT_FIELD(rl.loss,
                   one_of({"grpo", "bnpo", "dr_grpo", "dapo", "gspo"}),
                   "how token terms are weighed and summed"),
      COHORT_FIELD(rl.advantage_scale,
                   one_of({"group", "batch", "none"}),
                   "whose standard deviation divides an advantage"),
      COHORT_FIELD(rl.clip_low, from_to_below(0, 1), "the ratio is held above 1 - clip_low"),
      COHORT_FIELD(rl.clip_high, at_least(0), "the ratio is held below 1 + clip_high"),
      COHORT_FIELD(rl.beta,
                   at_least(0),
                   "weight of the KL term to the reference model; 0: no reference is kept"),
      COHORT_FIELD(rl.reference_every,
                   count_from(0),
                   "steps after which the reference becomes the model; 0: never"),
      COHORT_FIELD(rl.passes, count_from(1), "mu: passes over a rollout"),
      COHORT_FIELD(
          rl.mini_batches, from_to(1, kMaxTokens), "updates a pass; divides prompts_per_step"),
      COHORT_FIELD(rl.truncated,
                   one_of({"keep", "mask"}),
                   "completions cut by max_new_tokens; mask: they do not count in the loss"),
      COHORT_FIELD(rl.refill_rounds,
                   count_from(0),
                   "rounds in which groups of equal rewards are replaced by further problems"),
      COHORT_FIELD(
          rl.eval_every, count_from(0), "steps between evaluations on held-out problems; 0: never"),
      COHORT_FIELD(rl.eval_problems, from_to(1, kMaxTokens), "held-out problems an evaluation"),
      COHORT_FIELD(
          rl.eval_samples, from_to(1, kMaxExperts), "completions a problem in an evaluation"),
      COHORT_FIELD(
          rl.max_running, from_to(1, kMaxTokens), "sequences that decode at once on a rank"),
      COHORT_FIELD(rl.cache_tokens,
                   count_from(0),
                   "capacity of a rank's key/value cache in tokens; 0: what max_running needs"),
  };
}
#undef COHORT_FIELD
#undef COHORT_ROPE_FIELD

std::string number(double value) {
  return std::abs(value) < 1e15 && value == std::floor(value) ? fmt::format("{:.0f}", value)
                                                              : fmt::format("{}", value);
}

/// " >= 1", " from 0 to below 1", or nothing. Upper ends that are only there to keep arithmetic
/// sane are not worth a word here: a value beyond one is told its end.
std::string describe_range(const Allowed& allowed) {
  const bool has_low = std::isfinite(allowed.low), has_high = allowed.high < kMaxLayers;
  if (!has_low) return "";
  if (!has_high) return fmt::format(" {} {}", allowed.low_open ? ">" : ">=", number(allowed.low));
  return fmt::format(" {} {} to {}{}",
                     allowed.low_open ? "above" : "from",
                     number(allowed.low),
                     allowed.high_open ? "below " : "",
                     number(allowed.high));
}

std::string describe_type(const Field& field) {
  Config config;
  const FieldRef ref = field.at(config);
  const std::string range = describe_range(field.allowed);
  if (std::holds_alternative<bool*>(ref)) return "true or false";
  if (std::holds_alternative<uint64_t*>(ref))
    return "a whole number from 0 to 18446744073709551615";
  if (std::holds_alternative<double*>(ref)) return "a number" + range;
  if (std::holds_alternative<std::array<double, 2>*>(ref))
    return fmt::format("two numbers{}, as in [0.9, 0.95]", range);
  if (std::holds_alternative<std::vector<DataSource>*>(ref))
    return "a list such as [{path: data/train, weight: 1.0}]";
  if (std::holds_alternative<NamedOptions*>(ref))
    return "a name, or a map such as {name: countdown, count: 3}";
  if (std::holds_alternative<std::vector<NamedOptions>*>(ref))
    return "a list such as [countdown, {name: format, weight: 0.2}]";
  if (std::holds_alternative<std::vector<std::string>*>(ref)) return "a list of texts, none empty";
  if (!std::holds_alternative<std::string*>(ref)) return "a whole number" + range;
  if (field.allowed.choices.size() == 1) return field.allowed.choices[0];
  if (!field.allowed.choices.empty())
    return fmt::format("one of {}", fmt::join(field.allowed.choices, ", "));
  return "text";
}

}  // namespace

const std::vector<Field>& fields() {
  static const std::vector<Field> table = [] {
    std::vector<Field> all = run_fields();
    for (auto part : {model_fields(), training_fields(), rl_fields(), sample_fields()})
      all.insert(all.end(), part.begin(), part.end());
    return all;
  }();
  return table;
}

const Field* find_field(const std::string& key) {
  for (const Field& field : fields())
    if (field.key == key) return &field;
  return nullptr;
}

bool is_section(const std::string& key) {
  for (const Field& field : fields())
    if (field.key.starts_with(key + ".")) return true;
  return false;
}

bool has_parts(const Field& field) {
  Config config;
  const FieldRef ref = field.at(config);
  return std::holds_alternative<std::vector<DataSource>*>(ref) ||
         std::holds_alternative<NamedOptions*>(ref) ||
         std::holds_alternative<std::vector<NamedOptions>*>(ref);
}

std::string canonical_key(const std::string& written) {
  static const std::pair<std::string, std::string> kSpellings[] = {
      {"model.rope_scaling", "model.rope_parameters"},
      {"model.rope_theta", "model.rope_parameters.rope_theta"},
      {"model.num_experts", "model.n_routed_experts"},
      {"model.num_local_experts", "model.n_routed_experts"},
      {"model.num_mtp_layers", "model.num_nextn_predict_layers"},
  };
  std::string key = written;
  for (const auto& [other, ours] : kSpellings)
    if (key == other || key.starts_with(other + ".")) key = ours + key.substr(other.size());
  return key == "model.rope_parameters.type" ? "model.rope_parameters.rope_type" : key;
}

std::string describe(const Field& field) {
  const std::string type = describe_type(field);
  return field.allowed.word ? fmt::format("{}, or {}", type, field.allowed.word->word) : type;
}

}  // namespace cohort::core
