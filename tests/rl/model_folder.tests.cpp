#include "rl/model_folder.h"

#include "core/base/error.h"
#include "core/config/hf_config.h"
#include "core/io/safetensors.h"
#include "distributed/checkpoint.h"
#include "tests/catch.h"
#include "tests/fixtures.h"
#include "tests/moe/tiny.h"
#include "tests/rl/captured_log.h"
#include "tests/scratch_folder.h"

using namespace cohort;
using Catch::Contains;
using rl::ModelFolder;
namespace fs = std::filesystem;

namespace {

using Tensors = std::map<std::string, at::Tensor>;

/// What a model holds, by global name.
Tensors tensors_of(const moe::Transformer& model) {
  Tensors all;
  for (const auto& parameter : model.parameters())
    for (const auto& part : parameter.parts)
      all[part.name] = parameter.value.detach()
                           .view({-1})
                           .narrow(0, part.offset, c10::multiply_integers(part.shape))
                           .view(part.shape)
                           .clone();
  for (const auto& buffer : model.buffers()) all[buffer.name] = buffer.value.clone();
  return all;
}

moe::Transformer new_model(const core::ModelConfig& config, uint64_t seed = 5) {
  return moe::Transformer(config, distributed::make_local_mesh().ep, seed, at::kFloat);
}

void write_folder(const tests::ScratchFolder& folder,
                  const std::string& name,
                  const core::ModelConfig& config,
                  const Tensors& tensors) {
  folder.write(name + "/config.json", core::model_config_to_hf(config).dump());
  std::vector<core::NamedTensor> list;
  for (const auto& [tensor, value] : tensors) list.push_back({tensor, value.contiguous()});
  core::write_safetensors(folder / (name + "/model.safetensors"), list);
}

/// A run of two checkpoints of models drawn from seeds 1 and 2.
void write_run(const std::string& run, const core::ModelConfig& config) {
  distributed::CheckpointWriter writer(
      run + "/checkpoints", distributed::make_local_mesh(), 0, false);
  for (const uint64_t seed : {1, 2}) {
    distributed::CheckpointContent content;
    for (const auto& [name, value] : tensors_of(new_model(config, seed)))
      content.model.push_back({name, value.sizes().vec(), 0, value.numel(), value});
    content.files = {{"config.json", core::model_config_to_hf(config).dump()}};
    writer.save(static_cast<int64_t>(seed) * 10, std::move(content));
  }
  CHECK(writer.finish());
}

bool same(const Tensors& ours, const Tensors& theirs) {
  if (ours.size() != theirs.size()) return false;
  for (const auto& [name, value] : ours)
    if (!theirs.contains(name) || !at::equal(value, theirs.at(name))) return false;
  return true;
}

std::string refusal(const std::string& path) {
  try {
    rl::open_model_folder(path);
  } catch (const InputError& error) {
    return error.what();
  }
  return "";
}

std::string load_refusal(const ModelFolder& folder, const core::ModelConfig& config) {
  try {
    auto model = new_model(config);
    rl::load_model_weights(folder, model);
  } catch (const InputError& error) {
    return error.what();
  }
  return "";
}

/// The tensors of a folder without those of layers from `layers` on.
Tensors main_layers(const Tensors& all, int64_t layers) {
  Tensors kept;
  for (const auto& [name, value] : all)
    if (!name.starts_with("model.layers.") || std::stoi(name.substr(13)) < layers)
      kept[name] = value;
  return kept;
}

}  // namespace

TEST_CASE("a Hugging Face folder gives its config and every one of its weights",
          "[rl-model-folder][parity]") {
  for (const char* kind : {"deepseek_v3", "qwen", "mtp"})
    for (const auto& path : tests::cases(kind)) {
      if (!fs::is_directory(path)) continue;  // of mtp, some are single operators
      INFO(path);
      const ModelFolder folder = rl::open_model_folder(path.string());
      CHECK(folder.kind == ModelFolder::Kind::kHuggingFace);
      auto model = new_model(folder.config);
      rl::load_model_weights(folder, model);
      Tensors expected = core::read_safetensors(path.string());
      if (folder.config.tie_word_embeddings) expected.erase("lm_head.weight");
      for (auto& [name, value] : expected) value = value.to(at::kFloat);
      CHECK(same(tensors_of(model), expected));
    }
}

TEST_CASE("a checkpoint and the run that wrote it give the same model", "[rl-model-folder]") {
  const tests::ScratchFolder scratch;
  const core::ModelConfig config = tests::tiny_model();
  write_run(scratch / "run", config);
  const std::string newest = scratch / "run/checkpoints/step-00000020";
  for (const std::string& path : {scratch / "run", newest}) {
    const ModelFolder folder = rl::open_model_folder(path);
    CHECK(folder.kind == ModelFolder::Kind::kCheckpoint);
    CHECK(fs::path(folder.path) == fs::path(newest));
    CHECK(folder.config == config);
    auto model = new_model(folder.config);
    rl::load_model_weights(folder, model);
    CHECK(same(tensors_of(model), tensors_of(new_model(config, 2))));
  }
  CHECK(same(tensors_of(new_model(config, 2)), tensors_of(new_model(config, 2))));
  CHECK_FALSE(same(tensors_of(new_model(config, 1)), tensors_of(new_model(config, 2))));
}

TEST_CASE("of a run whose newest checkpoint is damaged the one before is taken",
          "[rl-model-folder]") {
  const tests::ScratchFolder scratch;
  write_run(scratch / "run", tests::tiny_model());
  for (const auto& entry : fs::directory_iterator(scratch / "run/checkpoints/step-00000020"))
    if (entry.path().filename().string().starts_with("model-")) {
      std::string bytes = tests::read_bytes(entry.path().string());
      bytes.back() ^= 1;
      tests::write_bytes(entry.path().string(), bytes);
    }
  const tests::CapturedLog log;
  const ModelFolder folder = rl::open_model_folder(scratch / "run");
  CHECK(fs::path(folder.path).filename() == "step-00000010");
  CHECK_THAT(log.text(), Contains("step-00000020"));
}

TEST_CASE("prediction modules may be missing from the folder or from the model",
          "[rl-model-folder]") {
  const tests::ScratchFolder scratch;
  const core::ModelConfig config = tests::tiny_model();
  core::ModelConfig without = config;
  without.num_nextn_predict_layers = 0;
  const Tensors all = tensors_of(new_model(config, 1));
  write_folder(scratch, "with", config, all);
  write_folder(scratch, "dropped", config, main_layers(all, config.num_hidden_layers));

  CHECK(rl::open_model_folder(scratch / "with").config.num_nextn_predict_layers == 2);
  const ModelFolder dropped = rl::open_model_folder(scratch / "dropped");
  CHECK(dropped.config.num_nextn_predict_layers == 0);

  auto main_only = new_model(without);
  rl::load_model_weights(rl::open_model_folder(scratch / "with"), main_only);
  CHECK(same(tensors_of(main_only), main_layers(all, config.num_hidden_layers)));

  auto anew = new_model(config, 5);
  const tests::CapturedLog log;
  rl::load_model_weights(dropped, anew);
  CHECK_THAT(log.text(), Contains("no weights for 2 multi-token-prediction module(s)"));
  Tensors expected = tensors_of(new_model(config, 5));
  for (const auto& [name, value] : main_layers(all, config.num_hidden_layers))
    expected[name] = value;
  CHECK(same(tensors_of(anew), expected));
}

TEST_CASE(
    "all that is missing, misshapen or beyond the model is named at once, before a model is "
    "made",
    "[rl-model-folder]") {
  const tests::ScratchFolder scratch;
  core::ModelConfig config = tests::tiny_model();
  config.num_nextn_predict_layers = 0;
  Tensors tensors = tensors_of(new_model(config, 1));
  tensors.erase("model.norm.weight");
  tensors.erase("model.layers.1.mlp.gate.e_score_correction_bias");
  tensors["model.embed_tokens.weight"] = at::zeros({60, 16});
  tensors["model.layers.7.input_layernorm.weight"] = at::zeros({16});
  write_folder(scratch, "m", config, tensors);
  const std::string message = refusal(scratch / "m"), start = scratch / "m: ";
  CHECK(message == start + "model.embed_tokens.weight is [60, 16], not [61, 16]\n" + start +
                       "model.layers.1.mlp.gate.e_score_correction_bias is missing\n" + start +
                       "model.norm.weight is missing\n" + start +
                       "\"model.layers.7.input_layernorm.weight\" is none of the model's tensors");

  // A model of another config.
  write_folder(scratch, "good", config, tensors_of(new_model(config, 1)));
  core::ModelConfig wider = config;
  wider.moe_intermediate_size = 20;
  CHECK_THAT(load_refusal(rl::open_model_folder(scratch / "good"), wider),
             Contains("model.layers.1.mlp.experts.0.gate_proj.weight is [12, 16], not [20, 16]\n"));
}

TEST_CASE("weights that are no numbers are refused by name", "[rl-model-folder]") {
  const tests::ScratchFolder scratch;
  core::ModelConfig config = tests::tiny_model();
  Tensors tensors = tensors_of(new_model(config, 1));
  tensors.at("model.layers.2.mlp.experts.5.up_proj.weight")[3][1] = std::nan("");
  tensors.at("model.norm.weight")[0] = -INFINITY;
  write_folder(scratch, "m", config, tensors);
  const std::string message = load_refusal(rl::open_model_folder(scratch / "m"), config);
  CHECK_THAT(message, Contains("model.norm.weight holds NaN or infinity"));
  CHECK_THAT(message,
             Contains("model.layers.2.mlp.experts.5.up_proj.weight holds NaN or infinity"));
}

TEST_CASE("a path that is no model is refused in one line that says what was found",
          "[rl-model-folder]") {
  const tests::ScratchFolder scratch;
  const core::ModelConfig config = tests::tiny_model();
  scratch.write("empty/readme.txt", "nothing");
  scratch.write("config/config.json", core::model_config_to_hf(config).dump());
  scratch.write("weights/model.safetensors", "x");
  scratch.write("run/checkpoints/readme.txt", "");
  scratch.write("broken/manifest.json", "{}");
  const std::pair<const char*, const char*> cases[] = {
      {"nowhere", "no such folder; want a checkpoint (manifest.json), a run"},
      {"empty/readme.txt", "is a file; want"},
      {"empty", "holds no model; want"},
      {"config", "has config.json but no weights; want"},
      {"weights", "has weights but no config.json; want"},
      {"run", "is a run that holds no checkpoint yet; want"},
      {"broken", "config.json"},
  };
  for (const auto& [name, right] : cases) {
    const std::string message = refusal(scratch / name);
    INFO(name << ": " << message);
    CHECK(message.starts_with(scratch / name));
    CHECK_THAT(message, Contains(right));
    CHECK(message.find('\n') == std::string::npos);
  }
}

TEST_CASE("a folder without a tokenizer, or with one of more tokens, is refused when one is needed",
          "[rl-model-folder]") {
  const tests::ScratchFolder scratch;
  core::ModelConfig config = tests::tiny_model();
  write_folder(scratch, "m", config, tensors_of(new_model(config)));
  const ModelFolder folder = rl::open_model_folder(scratch / "m");
  CHECK_THROWS_WITH(folder.tokenizer(), Contains("has no tokenizer.json"));
  bool given = false;
  const auto next = [&given](std::string& text) {
    text = "some words of text";
    return !std::exchange(given, true);
  };
  core::train_tokenizer(next, core::TokenizerTrainOptions{}).save(folder.tokenizer_path());
  CHECK_THROWS_WITH(folder.tokenizer(), Contains("more than the vocab_size 61"));
}
