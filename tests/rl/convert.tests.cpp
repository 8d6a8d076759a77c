// Import and export: byte for byte, whatever the shards; and what is refused.
#include "rl/convert.h"

#include <cstring>
#include <filesystem>

#include "core/base/error.h"
#include "core/config/hf_config.h"
#include "core/io/safetensors.h"
#include "distributed/checkpoint.h"
#include "moe/tensor_list.h"
#include "rl/model_folder.h"
#include "tests/catch.h"
#include "tests/fixtures.h"
#include "tests/moe/tiny.h"
#include "tests/scratch_folder.h"

using namespace cohort;
using Catch::Contains;
using rl::ConvertOptions;
namespace fs = std::filesystem;

namespace {

bool same_tensors(const std::string& a, const std::string& b) {
  const auto ours = core::read_safetensors(a), theirs = core::read_safetensors(b);
  if (ours.size() != theirs.size()) return false;
  for (const auto& [name, value] : ours) {
    const auto found = theirs.find(name);
    if (found == theirs.end() || found->second.scalar_type() != value.scalar_type() ||
        found->second.sizes() != value.sizes() ||
        std::memcmp(found->second.const_data_ptr(), value.const_data_ptr(), value.nbytes()) != 0)
      return false;
  }
  return true;
}

/// A small bf16 folder with all that is carried along.
void write_source(const tests::ScratchFolder& scratch, const core::ModelConfig& config) {
  std::vector<core::NamedTensor> tensors;
  moe::for_each_tensor(config, [&](const moe::TensorSpec& spec) {
    const at::Tensor value = at::randn(spec.shape);
    tensors.push_back({spec.name, spec.is_router_bias ? value : value.to(at::kBFloat16)});
    return true;
  });
  scratch.write("in/config.json", core::model_config_to_hf(config).dump());
  scratch.write("in/generation_config.json", R"({"eos_token_id": [1, 7], "temperature": 0.6})");
  scratch.write("in/chat_template.jinja", "{{ messages }}");
  scratch.write("in/tokenizer_config.json", R"({"chat_template": "x"})");
  core::write_safetensors(scratch / "in/model.safetensors", tensors);
}

std::string refusal(const std::string& from, const std::string& to, ConvertOptions options = {}) {
  try {
    rl::convert_model(from, to, options);
  } catch (const InputError& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("reference models come back byte for byte, also through a checkpoint",
          "[rl-convert][parity]") {
  for (const char* kind : {"deepseek_v3", "qwen", "mtp"})
    for (const auto& folder : tests::cases(kind)) {
      if (!fs::exists(folder / "config.json")) continue;
      CAPTURE(folder);
      const tests::ScratchFolder scratch;
      ConvertOptions options;
      options.shard_bytes = 100'000;
      rl::convert_model(folder.string(), scratch / "hf", options);
      CHECK(same_tensors(folder.string(), scratch / "hf"));
      CHECK(core::model_config_to_hf(core::read_hf_config(scratch / "hf")) ==
            core::model_config_to_hf(core::read_hf_config(folder.string())));
      options.to = ConvertOptions::To::kCheckpoint;
      rl::convert_model(folder.string(), scratch / "checkpoint", options);
      CHECK(distributed::verify_checkpoint(scratch / "checkpoint").empty());
      rl::convert_model(scratch / "checkpoint", scratch / "again", {});
      CHECK(same_tensors(folder.string(), scratch / "again"));
    }
}

TEST_CASE("what belongs to a model travels with its weights", "[rl-convert]") {
  const tests::ScratchFolder scratch;
  write_source(scratch, tests::tiny_model());
  const auto report = rl::convert_model(scratch / "in", scratch / "out", {});
  CHECK(report.files == 1);
  CHECK(same_tensors(scratch / "in", scratch / "out"));
  CHECK(scratch.list("out") == std::vector<std::string>{"chat_template.jinja",
                                                        "config.json",
                                                        "generation_config.json",
                                                        "model.safetensors",
                                                        "tokenizer_config.json"});
  for (const char* name :
       {"chat_template.jinja", "generation_config.json", "tokenizer_config.json"})
    CHECK(scratch.read(std::string("out/") + name) == scratch.read(std::string("in/") + name));
  const auto config = nlohmann::json::parse(scratch.read("out/config.json"));
  CHECK(config["torch_dtype"] == "bfloat16");
  CHECK(config["eos_token_id"] == nlohmann::json{1, 7});
  CHECK(config["num_nextn_predict_layers"] == 2);
  const core::ModelConfig model = rl::open_model_folder(scratch / "out").config;
  CHECK(model.is_end(1));
  CHECK(model.is_end(7));
  CHECK_FALSE(model.is_end(2));
}

TEST_CASE("weights are converted to a dtype, the router's bias stays exact", "[rl-convert]") {
  const tests::ScratchFolder scratch;
  write_source(scratch, tests::tiny_model());
  ConvertOptions options;
  options.dtype = at::kFloat;
  rl::convert_model(scratch / "in", scratch / "fp32", options);
  options.dtype = at::kBFloat16;
  rl::convert_model(scratch / "fp32", scratch / "bf16", options);
  CHECK(same_tensors(scratch / "in", scratch / "bf16"));
  for (const auto& [name, value] : core::read_safetensors(scratch / "fp32"))
    CHECK(value.scalar_type() == at::kFloat);
}

TEST_CASE("an export of a bf16 run in fp32 has the masters", "[rl-convert]") {
  const tests::ScratchFolder scratch;
  core::ModelConfig config = tests::tiny_model();
  config.num_nextn_predict_layers = 0;
  std::map<std::string, at::Tensor> masters;
  distributed::CheckpointContent content;
  moe::for_each_tensor(config, [&](const moe::TensorSpec& spec) {
    const at::Tensor master = at::randn(spec.shape), weight = master.to(at::kBFloat16);
    masters[spec.name] = master;
    content.model.push_back({spec.name, spec.shape, 0, master.numel(), weight});
    content.optimizer.push_back({spec.name + "#master", spec.shape, 0, master.numel(), master});
    return true;
  });
  content.files = {{"config.json", core::model_config_to_hf(config).dump()}};
  distributed::CheckpointWriter writer(
      scratch / "run/checkpoints", distributed::make_local_mesh(), 0, false);
  writer.save(3, std::move(content));
  REQUIRE(writer.finish());
  ConvertOptions options;
  options.dtype = at::kFloat;
  rl::convert_model(scratch / "run", scratch / "fp32", options);
  for (const auto& [name, value] : core::read_safetensors(scratch / "fp32"))
    CHECK(at::equal(value, masters.at(name)));
  rl::convert_model(scratch / "run", scratch / "own", {});
  for (const auto& [name, value] : core::read_safetensors(scratch / "own"))
    CHECK(at::equal(value, masters.at(name).to(at::kBFloat16)));
}

TEST_CASE("a refused conversion leaves nothing behind", "[rl-convert]") {
  const tests::ScratchFolder scratch;
  write_source(scratch, tests::tiny_model());
  scratch.write("full/file", "x");
  const auto before = scratch.list("");
  CHECK_THAT(refusal(scratch / "in", scratch / "full"), Contains("is not empty"));
  CHECK_THAT(refusal(scratch / "in", scratch / "in"), Contains("is not empty"));
  CHECK_THAT(refusal(scratch / "in", scratch / "full/file"), Contains("is a file"));
  CHECK_THAT(refusal(scratch / "none", scratch / "out"), Contains("no such folder"));
  auto tensors = core::read_safetensors(scratch / "in");
  tensors.at("model.norm.weight")[2] = std::nan("");
  tensors.at("lm_head.weight")[60][15] = INFINITY;
  std::vector<core::NamedTensor> list;
  for (const auto& [name, value] : tensors) list.push_back({name, value});
  core::write_safetensors(scratch / "in/model.safetensors", list);
  const std::string said = refusal(scratch / "in", scratch / "out");
  CHECK_THAT(said, Contains("model.norm.weight holds NaN or infinity\n"));
  CHECK_THAT(said, Contains("lm_head.weight holds NaN or infinity"));
  CHECK(scratch.list("") == before);
  CHECK(scratch.list("full") == std::vector<std::string>{"file"});

  fs::create_directories(scratch / "empty");
  write_source(scratch, tests::tiny_model());
  scratch.write(".empty.partial/half", "of a conversion that was killed");
  rl::convert_model(scratch / "in", scratch / "empty", {});
  CHECK(scratch.list("empty").size() == 5);
  CHECK_FALSE(fs::exists(scratch / ".empty.partial"));
}
