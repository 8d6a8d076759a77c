#include <unistd.h>

#include <fstream>
#include <set>

#include "core/base/error.h"
#include "core/config/fields.h"
#include "core/config/parse.h"
#include "core/config/validate.h"
#include "core/config/values.h"
#include "tests/catch.h"

using namespace cohort::core;

namespace {

Config parse(const std::string& yaml, const std::vector<std::string>& overrides = {}) {
  return parse_config_text(yaml, "test.yaml", overrides);
}

/// The message of the InputError that `run` throws; fails when there is none.
template <typename Run>
std::string input_error(Run run) {
  try {
    run();
  } catch (const cohort::InputError& error) {
    return error.what();
  }
  FAIL("nothing was refused");
  return "";
}

bool holds(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

struct BadConfig {
  const char* why;
  std::string yaml;
  std::vector<std::string> overrides;
  const char* place;  ///< What the message begins with: file, line (or override) and key.
  const char* right;  ///< What it must say besides.
};

// One case a line: why, YAML, overrides, where the message must begin, what it must say.
// clang-format off
const BadConfig kBadConfigs[] = {
    // Shape of the file.
    {"empty file", "", {}, "test.yaml: ", "want a map of sections"},
    {"only comments", "# nothing\n", {}, "test.yaml: ", "want a map of sections"},
    {"list for the file", "- run\n- mesh\n", {},
    "test.yaml: ", "is a list; want a map of sections"},
    {"text for the file", "hello\n", {}, "test.yaml: ", "want a map of sections"},
    {"unclosed bracket", "run:\n  dir: x\noptimizer:\n  betas: [0.9, 0.95\n", {},
    "test.yaml:", "not readable as YAML"},
    {"tab as indentation", "run:\n\tdir: x\n", {}, "test.yaml:2: ", "not readable as YAML"},
    {"bad indentation", "run:\n  dir: x\n seed: 1\n", {}, "test.yaml:3: ", "not readable as YAML"},
    {"two documents", "run: {dir: x}\n---\nrun: {dir: y}\n", {}, "test.yaml: ", "2 YAML documents"},
    {"bytes that are no text", "run:\n  dir: a\xff\n", {}, "test.yaml:2: ", "want UTF-8"},
    {"UTF-16", std::string("r\0u\0n\0", 6), {}, "test.yaml:1: ", "want UTF-8"},
    {"list for a section", "run:\n  dir: x\ntrain:\n  - steps: 5\n", {},
    "test.yaml:4: train: ", "a list"},
    {"text for a section", "run:\n  dir: x\nmesh: 4\n", {},
    "test.yaml:3: mesh: ", "want keys with values"},
    {"list as key", "run:\n  ? [a, b]\n  : c\n", {}, "test.yaml:2: run: ", "want a name"},
    // Keys.
    {"misspelt section", "modle:\n  vocab_size: 5\n", {},
    "test.yaml:1: modle: ", "did you mean model?"},
    {"misspelt key", "train:\n  steps: 5\n  mirco_batch: 8\n", {},
    "test.yaml:3: train.mirco_batch: ", "did you mean train.micro_batch?"},
    {"key of another section", "train:\n  lr: 1e-3\n", {},
    "test.yaml:2: train.lr: ", "did you mean optimizer.lr?"},
    {"key at the top", "weight_decay: 0.1\n", {},
    "test.yaml:1: weight_decay: ", "did you mean optimizer.weight_decay?"},
    {"key nothing resembles", "mesh:\n  ep: 1\n  tensor_parallel: 2\n", {},
    "test.yaml:3: mesh.tensor_parallel: ", "known here: dp, ep, pp"},
    {"key below a value", "train:\n  steps:\n    many: 5\n", {},
    "test.yaml:3: train.steps: ", "a map"},
    {"key with a line break", "\"run\\n.dir\": x\n", {},
    "test.yaml:1: 'run\\x0a.dir': ", "unknown key"},
    {"misspelt model.from", "model:\n  form: x\n", {},
    "test.yaml:2: model.form: ", "did you mean model.from?"},
    {"misspelt rope key", "model:\n  rope_scaling:\n    betafast: 3\n", {},
    "test.yaml:3: model.rope_scaling.betafast: ", "did you mean model.rope_parameters.beta_fast?"},
    {"duplicate key", "train:\n  steps: 5\n  global_batch: 64\n  steps: 6\n", {},
    "test.yaml:4: train.steps: ", "stands here twice"},
    {"duplicate section", "run:\n  dir: x\nrun:\n  seed: 1\n", {},
    "test.yaml:3: run: ", "stands here twice"},
    {"two spellings of a key", "model:\n  rope_theta: 5\n  rope_scaling:\n    rope_theta: 6\n", {},
    "test.yaml:4: model.rope_scaling.rope_theta: ", "given twice"},
    // Types.
    {"text for a number", "train:\n  steps: many\n", {},
    "test.yaml:2: train.steps: ", "'many' is not a whole number; want a whole number >= 1"},
    {"number in quotes", "train:\n  steps: \"500\"\n", {},
    "test.yaml:2: train.steps: ", "want a whole number"},
    {"fraction for an integer", "train:\n  micro_batch: 1.5\n", {},
    "test.yaml:2: train.micro_batch: ", "'1.5' is not a whole number"},
    {"exponent for an integer", "train:\n  steps: 1e3\n", {},
    "test.yaml:2: train.steps: ", "'1e3' is not a whole number"},
    {"bool for an integer", "train:\n  steps: true\n", {},
    "test.yaml:2: train.steps: ", "not a whole number"},
    {"list for an integer", "train:\n  steps: [1]\n", {}, "test.yaml:2: train.steps: ", "a list"},
    {"text for a real number", "optimizer:\n  lr: fast\n", {},
    "test.yaml:2: optimizer.lr: ", "'fast' is not a number; want a number > 0"},
    {"number with a unit", "run:\n  timeout_s: 10s\n", {},
    "test.yaml:2: run.timeout_s: ", "'10s' is not a number"},
    {"number for a bool", "checkpoint:\n  async: 2\n", {},
    "test.yaml:2: checkpoint.async: ", "want true or false"},
    {"map for text", "run:\n  dir: {a: b}\n", {}, "test.yaml:2: run.dir: ", "want text"},
    {"empty text", "run:\n  dir: ''\n", {}, "test.yaml:2: run.dir: ", "empty"},
    {"null for text", "run:\n  dir:\n", {}, "test.yaml:2: run.dir: ", "null"},
    {"null for a number", "model:\n  hidden_size: null\n", {},
    "test.yaml:2: model.hidden_size: ", "null is not what this key takes"},
    {"one beta", "optimizer:\n  betas: [0.9]\n", {},
    "test.yaml:2: optimizer.betas: ", "as in [0.9, 0.95]"},
    {"text beta", "optimizer:\n  betas: [0.9, x]\n", {},
    "test.yaml:2: optimizer.betas: ", "'x' is not a number"},
    // Ranges.
    {"negative count", "train:\n  steps: -5\n", {},
    "test.yaml:2: train.steps: ", "'-5' is out of range"},
    {"zero steps", "train:\n  steps: 0\n", {},
    "test.yaml:2: train.steps: ", "want a whole number >= 1"},
    {"zero learning rate", "optimizer:\n  lr: 0\n", {},
    "test.yaml:2: optimizer.lr: ", "want a number > 0"},
    {"negative gamma", "router:\n  bias_update_speed: -1e-3\n", {},
    "test.yaml:2: router.bias_update_speed: ", "want a number >= 0"},
    {"NaN", "optimizer:\n  lr: .nan\n", {}, "test.yaml:2: optimizer.lr: ", "not a finite number"},
    {"another NaN", "optimizer:\n  lr: nan\n", {},
    "test.yaml:2: optimizer.lr: ", "not a finite number"},
    {"infinity", "optimizer:\n  clip: .inf\n", {},
    "test.yaml:2: optimizer.clip: ", "not a finite number"},
    {"overflowing real", "optimizer:\n  clip: 1e999\n", {},
    "test.yaml:2: optimizer.clip: ", "does not fit"},
    {"overflowing integer", "train:\n  steps: 99999999999999999999\n", {},
    "test.yaml:2: train.steps: ", "too large"},
    {"overflowing seed", "run:\n  seed: 18446744073709551616\n", {},
    "test.yaml:2: run.seed: ", "too large"},
    {"negative seed", "run:\n  seed: -1\n", {}, "test.yaml:2: run.seed: ", "out of range"},
    {"beta of one", "optimizer:\n  betas: [0.9, 1.0]\n", {},
    "test.yaml:2: optimizer.betas: ", "out of range"},
    {"absurd size", "model:\n  hidden_size: 4611686018427387904\n", {},
    "test.yaml:2: model.hidden_size: ", "above 1048576"},
    {"zero ranks", "mesh:\n  dp: 0\n", {}, "test.yaml:2: mesh.dp: ", "or auto"},
    // Words.
    {"steps and epochs", "train: {steps: 5}\n", {"train.epochs=2"},
    "override 'train.epochs=2': train.epochs: ", "5 steps or 2 epochs long, not both"},
    {"neither steps nor epochs", "train: {steps: null}\n", {},
    "test.yaml:1: train.steps: ", "neither steps nor epochs"},
    {"no epochs", "train:\n  epochs: 0\n", {},
    "test.yaml:2: train.epochs: ", "want a number"},
    {"unknown precision", "train:\n  precision: fp8\n", {},
    "test.yaml:2: train.precision: ", "want one of fp32, bf16, fp64"},
    {"unknown optimizer", "optimizer: {name: sgd}\n", {},
    "test.yaml:1: optimizer.name: ", "want one of adamw, muon"},
    {"unknown schedule", "schedule: {name: wsd}\n", {},
    "test.yaml:1: schedule.name: ", "warmup_cosine, warmup_linear"},
    {"unknown recompute", "train: {recompute: full}\n", {},
    "test.yaml:1: train.recompute: ", "want one of none, layer"},
    {"unknown scores", "model: {scoring_func: relu}\n", {},
    "test.yaml:1: model.scoring_func: ", "sigmoid, softmax"},
    {"unknown activation", "model: {hidden_act: gelu}\n", {},
    "test.yaml:1: model.hidden_act: ", "want silu"},
    {"unknown architecture", "model: {model_type: llama}\n", {},
    "test.yaml:1: model.model_type: ", "qwen3_moe"},
    {"unknown device", "run: {device: tpu}\n", {}, "test.yaml:1: run.device: ", "auto, cpu, cuda"},
    // Data.
    {"source without path", "data:\n  train:\n    - {weight: 2}\n", {},
    "test.yaml:3: data.train.0.path: ", "is missing"},
    {"misspelt source key", "data:\n  train:\n    - {path: a}\n    - {pth: b}\n", {},
    "test.yaml:4: data.train.1.pth: ", "path and weight"},
    {"zero weight", "data:\n  train:\n    - path: a\n      weight: 0\n", {},
    "test.yaml:4: data.train.0.weight: ", "want a number > 0"},
    {"null sources", "data:\n  train:\n", {}, "test.yaml:2: data.train: ", "want a list such as"},
    {"source twice", "data:\n  train:\n    - {path: a, path: b}\n", {},
    "test.yaml:3: data.train.0.path: ", "twice"},
    // Keys that must fit together.
    {"indivisible experts", "model:\n  n_routed_experts: 10\n  n_group: 4\n", {},
    "test.yaml:3: model.n_group: ", "10 experts do not fall into 4 equal groups"},
    {"too many groups", "model:\n  n_group: 2\n  topk_group: 3\n", {},
    "test.yaml:3: model.topk_group: ", "at most n_group"},
    {"too many experts a token", "model:\n  n_group: 8\n  topk_group: 1\n  num_experts_per_tok: 3\n", {},
    "test.yaml:4: model.num_experts_per_tok: ", "num_experts_per_tok <= 2"},
    {"too few experts", "model:\n  num_experts: 2\n", {},
    "test.yaml:2: model.num_experts: ", "num_experts_per_tok <= 2"},
    {"indivisible ep", "mesh:\n  ep: 3\n", {},
    "test.yaml:2: mesh.ep: ", "divides n_routed_experts"},
    {"ep beyond dp", "mesh:\n  dp: 2\n  ep: 4\n", {}, "test.yaml:3: mesh.ep: ", "divides dp"},
    {"ep of a dense model", "model: {n_routed_experts: 0}\nmesh: {ep: 2}\n", {},
    "test.yaml:2: mesh.ep: ", "want ep: 1"},
    {"pipeline stages", "mesh:\n  pp: 2\n", {}, "test.yaml:2: mesh.pp: ", "want pp: 1"},
    {"odd rotated part", "model:\n  qk_rope_head_dim: 15\n", {},
    "test.yaml:2: model.qk_rope_head_dim: ", "even"},
    {"too many dense layers", "model:\n  first_k_dense_replace: 7\n", {},
    "test.yaml:2: model.first_k_dense_replace: ", "at most 6"},
    {"GQA in deepseek_v3", "model:\n  kv_lora_rank: null\n", {},
    "test.yaml:2: model.kv_lora_rank: ", "kv_lora_rank >= 1"},
    {"softmax in deepseek_v3", "model:\n  scoring_func: softmax\n", {},
    "test.yaml:2: model.scoring_func: ", "deepseek_v3"},
    {"MLA in qwen3", "model:\n  model_type: qwen3\n  kv_lora_rank: 64\n", {},
    "test.yaml:3: model.kv_lora_rank: ", "qwen3"},
    {"dense qwen3_moe", "model:\n  model_type: qwen3_moe\n  num_experts: 0\n", {},
    "test.yaml:3: model.num_experts: ", "model_type: qwen3"},
    {"GQA heads", "model:\n  model_type: qwen2\n  num_key_value_heads: 3\n", {},
    "test.yaml:3: model.num_key_value_heads: ", "divisor of 4"},
    {"MLA heads", "model:\n  num_key_value_heads: 2\n", {},
    "test.yaml:2: model.num_key_value_heads: ", "leave the key out"},
    {"odd head", "model:\n  model_type: qwen2\n  head_dim: 15\n", {},
    "test.yaml:3: model.head_dim: ", "even"},
    {"indivisible head", "model:\n  model_type: qwen2\n  num_attention_heads: 3\n", {},
    "test.yaml:3: model.num_attention_heads: ", "hidden_size"},
    {"batches", "train:\n  global_batch: 10\n  micro_batch: 4\n", {},
    "test.yaml:3: train.micro_batch: ", "divisor of 10"},
    {"batches over ranks", "mesh: {dp: 3}\ntrain:\n  global_batch: 8\n  micro_batch: 4\n", {},
    "test.yaml:3: train.global_batch: ", "multiple of 12"},
    {"long sequences", "data:\n  seq_len: 2048\n", {},
    "test.yaml:2: data.seq_len: ", "at most 1024"},
    {"deep prediction", "model:\n  num_nextn_predict_layers: 2\ndata: {seq_len: 2}\n", {},
    "test.yaml:2: model.num_nextn_predict_layers: ", "seq_len"},
    {"token outside", "model:\n  vocab_size: 100\n  eos_token_id: 100\n", {},
    "test.yaml:3: model.eos_token_id: ", "less than vocab_size 100"},
    {"yarn without context", "model:\n  rope_parameters:\n    rope_type: yarn\n    factor: 4\n", {},
    "test.yaml:3: model.rope_parameters.rope_type: ", "yarn stretches a known context"},
    {"factor without yarn", "model:\n  rope_scaling:\n    factor: 4\n", {},
    "test.yaml:3: model.rope_scaling.factor: ", "rope_type: yarn"},
    {"yarn betas", "model:\n  rope_scaling: {type: yarn, original_max_position_embeddings: 64, beta_fast: 1}\n", {},
    "test.yaml:2: model.rope_scaling.beta_fast: ", "beta_slow"},
    {"config.json that is not there", "model:\n  from: /nowhere/config.json\n", {},
    "test.yaml:2: model.from: ", "/nowhere/config.json: no such file"},
    {"config.json that a folder lacks", "run:\n  model: /nowhere\n", {},
    "test.yaml:2: run.model: ", "/nowhere: no such file"},
    {"list for the folder of a model", "run:\n  model: [a]\n", {},
    "test.yaml:2: run.model: ", "want a model's folder"},
    // Reinforcement learning.
    {"text for the rl section", "rl: countdown\n", {}, "test.yaml:1: rl: ", "want keys with values"},
    {"misspelt rl key", "rl:\n  groupsize: 4\n", {},
    "test.yaml:2: rl.groupsize: ", "did you mean rl.group_size?"},
    {"misspelt sampling key", "rl:\n  sampling:\n    temprature: 1\n", {},
    "test.yaml:3: rl.sampling.temprature: ", "did you mean rl.sampling.temperature?"},
    {"sampling key a level up", "rl:\n  max_new_tokens: 5\n", {},
    "test.yaml:2: rl.max_new_tokens: ", "did you mean rl.sampling.max_new_tokens?"},
    {"list for a task", "rl:\n  task: [countdown]\n", {},
    "test.yaml:2: rl.task: ", "a list is no task; want a name"},
    {"empty task", "rl:\n  task: ''\n", {}, "test.yaml:2: rl.task: ", "'' is no task"},
    {"task without name", "rl:\n  task: {count: 3}\n", {},
    "test.yaml:2: rl.task.name: ", "is missing"},
    {"list for the name of a task", "rl:\n  task: {name: [a]}\n", {},
    "test.yaml:2: rl.task.name: ", "a list is no name"},
    {"weight of a task", "rl:\n  task:\n    name: countdown\n    weight: 2\n", {},
    "test.yaml:4: rl.task.weight: ", "a task has none"},
    {"option twice", "rl:\n  task:\n    name: countdown\n    count: 2\n    count: 3\n", {},
    "test.yaml:5: rl.task.count: ", "stands here twice"},
    {"list as option", "rl:\n  task: {name: a, ? [b] : c}\n", {}, "test.yaml:2: rl.task: ", "want a name"},
    {"infinite option", "rl:\n  task: {name: a, max: .inf}\n", {},
    "test.yaml:2: rl.task.max: ", "not a finite number"},
    {"overflowing option", "rl:\n  task: {name: a, max: [1, 1e999]}\n", {},
    "test.yaml:2: rl.task.max.1: ", "too large"},
    {"whole option beyond 64 bits", "rl:\n  task: {name: a, seed: 18446744073709551616}\n", {},
    "test.yaml:2: rl.task.seed: ", "too large"},
    {"zero byte in an option", "rl:\n  task: {name: a, prompt: \"\\0\"}\n", {},
    "test.yaml:2: rl.task.prompt: ", "zero byte"},
    {"endless options", "rl:\n  task: &t {name: a, inside: *t}\n", {},
    "test.yaml:2: rl.task.inside", "without end"},
    {"null rewards", "rl:\n  rewards:\n", {}, "test.yaml:2: rl.rewards: ", "want a list such as"},
    {"null reward", "rl:\n  rewards: [format, ~]\n", {},
    "test.yaml:2: rl.rewards.1: ", "null is no reward"},
    {"reward without name", "rl:\n  rewards:\n    - {weight: 1}\n", {},
    "test.yaml:3: rl.rewards.0.name: ", "is missing"},
    {"weight that is no number", "rl:\n  rewards:\n    - format\n    - {name: exact, weight: high}\n", {},
    "test.yaml:4: rl.rewards.1.weight: ", "'high' is not a weight; want a number"},
    {"weight in quotes", "rl:\n  rewards: {name: exact, weight: '1'}\n", {},
    "test.yaml:2: rl.rewards.weight: ", "not a weight"},
    {"map as stop text", "rl:\n  sampling: {stop: [{a: b}]}\n", {},
    "test.yaml:2: rl.sampling.stop: ", "a list of texts"},
    {"empty stop text", "rl:\n  sampling: {stop: ['']}\n", {},
    "test.yaml:2: rl.sampling.stop: ", "none empty"},
    {"group of one", "rl:\n  group_size: 1\n", {}, "test.yaml:2: rl.group_size: ", "want a whole number >= 2"},
    {"negative temperature", "rl:\n  sampling: {temperature: -1}\n", {},
    "test.yaml:2: rl.sampling.temperature: ", "want a number >= 0"},
    {"top_p of nothing", "rl:\n  sampling: {top_p: 0}\n", {},
    "test.yaml:2: rl.sampling.top_p: ", "want a number above 0 to 1"},
    {"min_p of one", "rl:\n  sampling: {min_p: 1}\n", {},
    "test.yaml:2: rl.sampling.min_p: ", "want a number from 0 to below 1"},
    {"no new tokens", "rl:\n  sampling: {max_new_tokens: 0}\n", {},
    "test.yaml:2: rl.sampling.max_new_tokens: ", "want a whole number >= 1"},
    {"unknown rl loss", "rl: {loss: ppo}\n", {}, "test.yaml:1: rl.loss: ", "grpo, bnpo, dr_grpo, dapo, gspo"},
    {"unknown advantage scale", "rl: {advantage_scale: std}\n", {},
    "test.yaml:1: rl.advantage_scale: ", "group, batch, none"},
    {"unknown handling of the truncated", "rl: {truncated: drop}\n", {},
    "test.yaml:1: rl.truncated: ", "keep, mask"},
    {"clip_low of one", "rl: {clip_low: 1}\n", {}, "test.yaml:1: rl.clip_low: ", "out of range"},
    {"negative clip_high", "rl: {clip_high: -0.1}\n", {}, "test.yaml:1: rl.clip_high: ", ">= 0"},
    {"negative beta", "rl: {beta: -0.1}\n", {}, "test.yaml:1: rl.beta: ", ">= 0"},
    {"no passes", "rl: {passes: 0}\n", {}, "test.yaml:1: rl.passes: ", ">= 1"},
    {"uneven mini-batches", "rl:\n  prompts_per_step: 16\n  mini_batches: 3\n", {},
    "test.yaml:3: rl.mini_batches: ", "divide prompts_per_step"},
    {"completions longer than the model", "rl:\n  task: countdown\n  sampling: {max_new_tokens: 1024}\n", {},
    "test.yaml:3: rl.sampling.max_new_tokens: ", "want at most 1023"},
    {"cache too small for a sequence", "rl:\n  task: countdown\n  cache_tokens: 64\n", {},
    "test.yaml:3: rl.cache_tokens: ", "does not hold one sequence"},
    {"option without a task", "run: {seed: 1}\n", {"rl.task.count=4"},
    "override 'rl.task.count=4': rl.task.count: ", "want rl.task.name"},
    {"option inside of an option", "rl: {task: countdown}\n", {"rl.task.a.b=4"},
    "override 'rl.task.a.b=4': rl.task.a.b: ", "not what is inside"},
    {"override beyond the rewards", "rl: {rewards: [format]}\n", {"rl.rewards.2.weight=1"},
    "override 'rl.rewards.2.weight=1': rl.rewards.2.weight: ", "want 0 to 1"},
    {"override of no reward", "rl: {rewards: [format]}\n", {"rl.rewards.format.weight=1"},
    "override 'rl.rewards.format.weight=1': rl.rewards.format.weight: ", "'format' is no index"},
    {"appended reward without name", "rl: {rewards: [format]}\n", {"rl.rewards.1.weight=1"},
    "override 'rl.rewards.1.weight=1': rl.rewards.1.weight: ", "reward 1 has no name"},
    // Overrides.
    {"override without =", "run: {seed: 1}\n", {"train.steps"},
    "override 'train.steps': ", "train.steps=500"},
    {"override without key", "run: {seed: 1}\n", {"=5"}, "override '=5': ", "section.key=value"},
    {"override of an unknown key", "run: {seed: 1}\n", {"train.step=5"},
    "override 'train.step=5': train.step: ", "did you mean train.steps?"},
    {"override of a section", "run: {seed: 1}\n", {"train=5"},
    "override 'train=5': train: ", "want keys with values"},
    {"override of the wrong type", "run: {seed: 1}\n", {"train.steps=x"},
    "override 'train.steps=x': train.steps: ", "want a whole number"},
    {"override with nothing", "run: {seed: 1}\n", {"train.steps="},
    "override 'train.steps=': train.steps: ", "want train.steps >= 1"},
    {"override that is no YAML", "run: {seed: 1}\n", {"data.train=[{path: x"},
    "override 'data.train=[{path: x': ", "not readable as YAML"},
    {"override that does not fit the file", "model:\n  n_routed_experts: 8\n", {"mesh.ep=3"},
    "override 'mesh.ep=3': mesh.ep: ", "divides n_routed_experts"},
    {"override beyond the list", "data: {train: [{path: a}]}\n", {"data.train.2.path=x"},
    "override 'data.train.2.path=x': data.train.2.path: ", "want 0 to 1"},
    {"override of an unknown source key", "data: {train: [{path: a}]}\n", {"data.train.0.wait=2"},
    "override 'data.train.0.wait=2': data.train.0.wait: ", "path and weight"},
    {"override of a source without path", "data: {train: [{path: a}]}\n", {"data.train.1.weight=2"},
    "override 'data.train.1.weight=2': data.train.1.weight: ", "has no path"},
    {"override that is no text", "run: {seed: 1}\n", {"run.dir=\xc3"}, "override 'run.dir=", "want UTF-8"},
    {"override with a line break", "run: {seed: 1}\n", {"a\nb=1"},
    "override 'a\\x0ab=1': ", "unknown key"},
};
// clang-format on

/// Options of every type, and texts that look like other types.
const nlohmann::json kOptions = nlohmann::json::parse(R"({
  "whole": -3, "large": 18446744073709551615, "real": 0.30000000000000004, "round": 2.0, "tiny": 1e-300,
  "huge": 1e22, "yes": true, "no": false, "nothing": null, "text": "plain", "number": "5", "real text": "1e3",
  "truth": "true", "null": "null", "tilde": "~", "empty": "", "tags": ["think", 1, [], {}, {"a": ["b"]}],
  "prompt": "Q: {question}\n\t\"A\": '\\' # - \u00e9 \u0001 \ud83d\ude00", "5": 5, "a.b": 1, "- x: y": {"k, ]": 1}
})");

/// Another value for the field: within its range, and unlike its default.
void change(const Field& field, Config& config) {
  struct Change {
    const Allowed& allowed;
    void operator()(bool* value) const { *value = !*value; }
    void operator()(int* value) const { *value += 3; }
    void operator()(int64_t* value) const { *value += 3; }
    void operator()(uint64_t* value) const { *value = 18446744073709551615ull; }
    // Seventeen digits are needed for this one.
    void operator()(double* value) const {
      *value = allowed.high <= 1 ? 0.1 + 0.2 : 1e-7 / 3 + *value;
    }
    void operator()(std::array<double, 2>* value) const { *value = {0.1 + 0.2, 1.0 / 3}; }
    void operator()(std::string* value) const {
      *value = allowed.choices.empty() ? "a: b #'\"\\ \xc3\xa9 null" : allowed.choices.back();
    }
    void operator()(std::vector<DataSource>* value) const {
      *value = {
          {"plain/path", 0.1 + 0.2}, {"with, comma ]}", 2.0}, {"~", 1.0}, {"1", 1.0}, {"null", 3}};
    }
    void operator()(NamedOptions* value) const { *value = {"countdown", 1.0, kOptions}; }
    void operator()(std::vector<NamedOptions>* value) const {
      *value = {{"plain", 1.0, nlohmann::json::object()},
                {"null", 0.1 + 0.2, nlohmann::json::object()},
                {"with options", -2.0, kOptions}};
    }
    void operator()(std::vector<std::string>* value) const {
      *value = {"</answer>", "\n", "5", "a: b #'\"\\ \xc3\xa9 ]}, null"};
    }
  };
  std::visit(Change{field.allowed}, field.at(config));
}

/// to_yaml and back, without the checks between keys.
Config through_text(const Config& config) {
  Config result;
  const YAML::Node root = YAML::Load(to_yaml(config));
  for (const Field& field : fields()) {
    YAML::Node node = YAML::Clone(root);
    for (std::string rest = field.key; !rest.empty();) {
      const size_t dot = std::min(rest.find('.'), rest.size());
      node = YAML::Clone(node[rest.substr(0, dot)]);
      rest = rest.substr(std::min(dot + 1, rest.size()));
    }
    assign(field, "", node, {"text", true}, field.key, result);
  }
  return result;
}

struct TemporaryFile {
  std::filesystem::path path;
  explicit TemporaryFile(const std::string& name, const std::string& text)
      : path(std::filesystem::temp_directory_path() / fmt::format("cohort-{}-{}", getpid(), name)) {
    std::ofstream(path) << text;
  }
  ~TemporaryFile() { std::filesystem::remove(path); }
};

}  // namespace

TEST_CASE("every mistake in a config is refused in one line that names the place and the remedy",
          "[core-config]") {
  for (const BadConfig& bad : kBadConfigs) {
    INFO(bad.why);
    const std::string message = input_error([&] { parse(bad.yaml, bad.overrides); });
    INFO(message);
    CHECK(message.starts_with(bad.place));
    CHECK(holds(message, bad.right));
    CHECK(message.find('\n') == std::string::npos);
    CHECK(message.size() < 400);
  }
}

TEST_CASE("a config that cannot be read is refused by its path", "[core-config]") {
  const std::string missing = input_error([] { parse_config("/nowhere/x.yaml", {}); });
  CHECK(missing == "/nowhere/x.yaml: no such file; want a YAML config");
  const std::string folder = input_error([] { parse_config("/", {}); });
  CHECK(folder == "/: is a folder; want a YAML config file");
  const TemporaryFile large("large.yaml", "#" + std::string(2 << 20, 'x'));
  CHECK(holds(input_error([&] { parse_config(large.path.string(), {}); }), "over 1 MiB"));
}

TEST_CASE("nesting without end is refused, not followed", "[core-config]") {
  CHECK(holds(input_error([] { parse(std::string(100000, '[')); }), "test.yaml"));
  CHECK(holds(input_error([] { parse("&top {run: *top}"); }), "run.run: unknown key"));
}

TEST_CASE("cuda is refused by a binary that has none", "[core-config]") {
  if (at::CUDAHooksRegistry()->Has("CUDAHooks")) return;
  CHECK(input_error([] { parse("run:\n  device: cuda\n"); }) ==
        "test.yaml:2: run.device: this binary was built without CUDA; use run.device=cpu or auto, "
        "or build the preset cuda");
}

TEST_CASE("keys that are left out have the defaults of config.h", "[core-config]") {
  CHECK(parse("run:\n") == Config{});
  CHECK(parse("{}") == Config{});
}

TEST_CASE("values arrive in their members", "[core-config]") {
  const Config config = parse(R"(
run: {dir: runs/tiny, seed: 18446744073709551615, timeout_s: 1e2}
mesh: {dp: auto, ep: 4}
model:
  vocab_size: 1000
  q_lora_rank: null
  rope_scaling: {type: yarn, factor: 4, original_max_position_embeddings: 256, mscale: 0.707}
  rope_theta: 1e6
  num_local_experts: 8
  eos_token_id: null
data:
  train:
    - {path: a/b, weight: .5}
    - c
  validation: d
optimizer: {lr: 1e-3, betas: [0.8, 0.99], clip: +2}
checkpoint: {async: no}
)");
  CHECK(config.run.dir == "runs/tiny");
  CHECK(config.run.seed == 18446744073709551615ull);
  CHECK(config.run.timeout_s == 100.0);
  CHECK(config.mesh.dp == 0);
  CHECK(config.mesh.ep == 4);
  CHECK(config.model.q_lora_rank == 0);
  CHECK(config.model.n_routed_experts == 8);
  CHECK(config.model.eos_token_id == -1);
  CHECK(config.model.rope.rope_type == "yarn");
  CHECK(config.model.rope.factor == 4.0);
  CHECK(config.model.rope.rope_theta == 1e6);
  CHECK(config.model.rope.mscale == 0.707);
  CHECK((config.data.train == std::vector<DataSource>{{"a/b", 0.5}, {"c", 1.0}}));
  CHECK(config.optimizer.betas == std::array<double, 2>{0.8, 0.99});
  CHECK(config.optimizer.clip == 2.0);
  CHECK_FALSE(config.checkpoint.async);
}

TEST_CASE("overrides win over the file, and later ones over earlier ones", "[core-config]") {
  const std::string yaml =
      "train: {steps: 5}\ndata: {train: [{path: a, weight: 3}], validation: v}\n";
  const auto with = [&](std::vector<std::string> overrides) { return parse(yaml, overrides); };
  CHECK(with({"train.steps=6", "train.steps=7"}).train.steps == 7);
  CHECK(with({"train.steps=null", "train.epochs=1.5"}).train.epochs == 1.5);
  CHECK(with({"train={steps: 8, global_batch: 16}"}).train.global_batch == 16);
  CHECK(with({"run.dir=a=b"}).run.dir == "a=b");
  CHECK(with({"run.dir='x y'"}).run.dir == "x y");
  CHECK(with({"data.validation="}).data.validation.empty());
  CHECK(with({"mesh.dp=2", "mesh.dp=auto"}).mesh.dp == 0);
  CHECK(with({"model.rope_theta=5e5"}).model.rope.rope_theta == 5e5);
  CHECK(with({"optimizer.betas=[0.5, 0.6]"}).optimizer.betas[1] == 0.6);
  CHECK((with({"data.train=[{path: x, weight: 2}]"}).data.train ==
         std::vector<DataSource>{{"x", 2.0}}));
  CHECK((with({"data.train=x"}).data.train == std::vector<DataSource>{{"x", 1.0}}));
  CHECK((with({"data.train.0.path=x"}).data.train == std::vector<DataSource>{{"x", 3.0}}));
  CHECK((with({"data.train.1.path=y", "data.train.1.weight=2"}).data.train ==
         std::vector<DataSource>{{"a", 3.0}, {"y", 2.0}}));
  CHECK((with({"data.train.0={path: z}"}).data.train == std::vector<DataSource>{{"z", 1.0}}));
}

TEST_CASE("a task and rewards are names, or maps whose further keys are options", "[core-config]") {
  const RlConfig rl = parse(R"(
rl:
  task:
    name: countdown
    count: 3
    seed: 18446744073709551615
    use: any
    share: 1e-1
    negative: false
    label: "3"
    operations: ["+", -, '*']
    nested: {a: [1, 2.0, x]}
    prompt: |
      {question}
      Answer:
  rewards: [format, {name: countdown, weight: 2, partial: 0.1}]
  sampling: {stop: [</answer>, 5]}
)")
                          .rl;
  CHECK((rl.task.name == "countdown"));
  CHECK((rl.task.options == nlohmann::json::parse(R"({"count": 3, "seed": 18446744073709551615,
    "use": "any", "share": 0.1, "negative": false, "label": "3", "operations": ["+", "-", "*"],
    "nested": {"a": [1, 2.0, "x"]}, "prompt": "{question}\nAnswer:\n"})")));
  CHECK(rl.task.options["count"].is_number_integer());
  CHECK(rl.task.options["nested"]["a"][1].is_number_float());
  REQUIRE(rl.rewards.size() == 2);
  CHECK((rl.rewards[0] == NamedOptions{"format"}));
  CHECK((rl.rewards[1] == NamedOptions{"countdown", 2.0, {{"partial", 0.1}}}));
  CHECK((rl.sampling.stop == std::vector<std::string>{"</answer>", "5"}));
  CHECK((parse("rl: {task: arithmetic, rewards: exact, sampling: {stop: x}}").rl.rewards ==
         std::vector<NamedOptions>{NamedOptions{"exact"}}));
  CHECK((parse("rl: {task: null}").rl == RlConfig{}));
}

TEST_CASE("overrides reach the options of a task and of rewards", "[core-config]") {
  const std::string yaml = "rl: {task: {name: countdown, count: 3}, rewards: [format, exact]}\n";
  const auto with = [&](std::vector<std::string> overrides) { return parse(yaml, overrides).rl; };
  CHECK((with({"rl.task.count=4"}).task.options == nlohmann::json{{"count", 4}}));
  CHECK((with({"rl.task.use=any"}).task.options == nlohmann::json{{"count", 3}, {"use", "any"}}));
  CHECK((with({"rl.task.name=jsonl"}).task.name == "jsonl"));
  CHECK((with({"rl.task=arithmetic"}).task == NamedOptions{"arithmetic"}));
  CHECK((with({"rl.task="}).task == NamedOptions{}));
  CHECK((with({"rl.rewards.0.weight=0.5"}).rewards[0] == NamedOptions{"format", 0.5}));
  CHECK((with({"rl.rewards.1={name: exact, ignore_case: false}"}).rewards[1] ==
         NamedOptions{"exact", 1.0, {{"ignore_case", false}}}));
  CHECK((with({"rl.rewards.2.weight=2", "rl.rewards.2.name=length"}).rewards[2] ==
         NamedOptions{"length", 2.0}));
  CHECK(with({"rl.rewards=[]"}).rewards.empty());
  CHECK((with({"rl.sampling.stop=[a, b]"}).sampling.stop.size() == 2));
  CHECK(with({"rl.sampling.stop=[]"}).sampling.stop.empty());
  CHECK((parse("run:", {"rl.task.count=4", "rl.task.name=countdown"}).rl.task.name == "countdown"));
}

TEST_CASE("the architecture decides the defaults of what it fixes", "[core-config]") {
  const ModelConfig qwen3 = parse("model: {model_type: qwen3, num_attention_heads: 8}").model;
  CHECK_FALSE(qwen3.uses_mla());
  CHECK(qwen3.qk_norm);
  CHECK_FALSE(qwen3.rope_interleave);
  CHECK(qwen3.n_routed_experts == 0);
  CHECK(qwen3.num_key_value_heads == 8);
  CHECK(parse("run:", {"model.model_type=qwen2"}).model.attention_bias);
  CHECK(parse("model: {model_type: qwen3_moe}").model.scoring_func == "softmax");
  CHECK(parse("model: {num_attention_heads: 16}").model.num_key_value_heads == 16);
  CHECK(parse("model: {max_position_embeddings: 64}").data.seq_len == 64);
  CHECK(parse("model: {max_position_embeddings: 512}").data.seq_len == 256);
}

TEST_CASE("a model can be taken from a config.json, with keys that override it", "[core-config]") {
  const TemporaryFile file("model.json",
                           R"({"model_type": "qwen3", "vocab_size": 300, "hidden_size": 64,
    "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16})");
  const std::string yaml = "model:\n  num_hidden_layers: 5\n  from: " + file.path.string() + "\n";
  const ModelConfig model = parse(yaml).model;
  CHECK(model.model_type == "qwen3");
  CHECK(model.num_hidden_layers == 5);
  CHECK(model.num_key_value_heads == 2);
  CHECK(model.head_dim == 16);
  CHECK(parse("run:", {"model.from=" + file.path.string()}).model.num_hidden_layers == 2);
  const std::string bad = input_error([&] { parse(yaml + "  hidden_size: 0\n"); });
  CHECK(bad.starts_with("test.yaml:4: model.hidden_size: "));
  const TemporaryFile broken("broken.json", "{\"model_type\": \"qwen3\",\n \"vocab_size\": }");
  const std::string message =
      input_error([&] { parse("model: {from: " + broken.path.string() + "}"); });
  CHECK(holds(message, "test.yaml:1: model.from: "));
  CHECK(holds(message, "broken.json:2: not readable as JSON"));
}

TEST_CASE("the folder of a run's first weights gives its model, unless model.from does",
          "[core-config]") {
  namespace fs = std::filesystem;
  const fs::path run = fs::temp_directory_path() / fmt::format("cohort-{}-run", getpid());
  const auto write = [&](const char* folder, int layers) {
    fs::create_directories(run / folder);
    std::ofstream(run / folder / "config.json")
        << R"({"model_type": "qwen3", "vocab_size": 300, "hidden_size": 64, "intermediate_size": 96,
    "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": )"
        << layers << "}";
  };
  write("checkpoints/step-00000010", 3);
  write("checkpoints/step-00000009", 2);
  const std::string yaml = "run: {model: " + run.string() + "}\n";
  const Config config = parse(yaml);
  CHECK(config.run.model == run.string());
  CHECK(config.model.num_hidden_layers == 3);
  CHECK(config.model.num_key_value_heads == 2);
  CHECK(parse(to_yaml(config)) == config);
  CHECK(parse(yaml, {"model.num_hidden_layers=7"}).model.num_hidden_layers == 7);
  CHECK((parse(yaml, {"run.model="}).model == ModelConfig{}));
  write("checkpoints/other", 9);
  CHECK(parse(yaml, {"model.from=" + (run / "checkpoints/step-00000009").string()})
            .model.num_hidden_layers == 2);
  const std::string bad = input_error([&] { parse(yaml + "mesh: {ep: 2}\n"); });
  CHECK(bad.starts_with("test.yaml:2: mesh.ep: "));
  fs::remove_all(run);
}

TEST_CASE("to_yaml says every key, and reads back as the very same config", "[core-config]") {
  const std::string yaml = to_yaml(Config{});
  CHECK(parse(yaml) == Config{});
  const YAML::Node root = YAML::Load(yaml);
  CHECK(root["mesh"]["dp"].Scalar() == "auto");
  CHECK(root["model"]["q_lora_rank"].IsNull());
  CHECK(root["model"]["rope_parameters"]["rope_theta"].Scalar() == "10000.0");

  Config all_changed;
  for (const Field& field : fields()) {
    INFO(field.key);
    Config config;
    change(field, config);
    if (field.allowed.choices.size() != 1) CHECK_FALSE(config == Config{});
    CHECK(through_text(config) == config);
    change(field, all_changed);
  }
  CHECK(through_text(all_changed) == all_changed);
  CHECK(to_yaml(through_text(all_changed)) == to_yaml(all_changed));
}

TEST_CASE("a config that parses also parses after to_yaml", "[core-config]") {
  for (const char* yaml :
       {"model: {model_type: qwen2, head_dim: 32, bos_token_id: null}\nmesh: {dp: 4}",
        "model: {model_type: qwen3_moe, num_experts: 8, decoder_sparse_step: 2}\ndata: {train: [a, "
        "b]}",
        "model: {q_lora_rank: 96, n_group: 4, topk_group: 2, num_nextn_predict_layers: 1, "
        "rope_parameters: {rope_type: yarn, factor: 40, original_max_position_embeddings: 64}}"}) {
    const Config config = parse(yaml);
    CHECK(parse(to_yaml(config)) == config);
  }
}

TEST_CASE("each key stands once in the table, and nowhere does a member lack its key",
          "[core-config]") {
  std::set<std::string> keys;
  std::set<const void*> members;
  Config config;
  size_t bytes = 0;
  for (const Field& field : fields()) {
    CHECK(keys.insert(field.key).second);
    std::visit(
        [&](auto* member) {
          CHECK(members.insert(member).second);
          bytes += sizeof(*member);
        },
        field.at(config));
    CHECK_FALSE(field.meaning.empty());
    CHECK(find_field(field.key) == &field);
  }
  // Whatever is not a member is padding: less than a word after each member that is not a word
  // long.
  size_t small = 0;
  for (const Field& field : fields())
    small += std::visit([](auto* member) { return sizeof(*member) < 8; }, field.at(config));
  CHECK(sizeof(Config) - bytes < 8 * small);
}

TEST_CASE("the reference has a line for each key with its default", "[core-config]") {
  const std::string text = config_reference();
  for (const Field& field : fields())
    CHECK(holds(text, "  " + field.key + " = " + value_text(field, Config{})));
  CHECK(holds(text, "model.from"));
  CHECK(static_cast<size_t>(std::count(text.begin(), text.end(), '\n')) == fields().size() + 1);
}

TEST_CASE("every file in configs parses", "[core-config]") {
  size_t found = 0;
  for (const auto& entry : std::filesystem::directory_iterator(COHORT_SOURCE_DIR "/configs")) {
    if (entry.path().extension() != ".yaml") continue;
    INFO(entry.path());
    // A folder that a run starts from is made by another run: there is none yet.
    const Config config = parse_config(entry.path().string(), {"run.model="});
    CHECK(parse(to_yaml(config)) == config);
    ++found;
  }
  CHECK(found >= 3);
}
