#include <fcntl.h>
#include <unistd.h>

#include <algorithm>

#include "cli/commands.h"
#include "cli/model_summary.h"
#include "core/base/error.h"
#include "core/io/safetensors.h"
#include "tests/catch.h"
#include "tests/distributed/checkpoint_cases.h"
#include "tests/fixtures.h"

using namespace cohort;
using namespace cohort::tests;
using Catch::Contains;

namespace {

/// Everything written to a descriptor while this lives.
class CapturedOutput {
 public:
  CapturedOutput(int descriptor, const std::string& path)
      : descriptor_(descriptor), path_(path), before_(::dup(descriptor)) {
    std::fflush(nullptr);
    const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    ::dup2(file, descriptor_);
    ::close(file);
  }
  std::string end() {
    std::fflush(nullptr);
    ::dup2(before_, descriptor_);
    ::close(before_);
    return read_bytes(path_);
  }

 private:
  int descriptor_;
  std::string path_;
  int before_;
};

struct Outcome {
  int code;
  std::string out, err;
};

Outcome inspect(const std::vector<std::string>& arguments) {
  CLI::App app;
  const auto run = cli::add_inspect(app);
  auto reversed = arguments;
  std::reverse(reversed.begin(), reversed.end());
  app.parse(reversed);
  const ScratchFolder folder;
  CapturedOutput out(1, folder / "out"), err(2, folder / "err");
  Outcome outcome{};
  std::exception_ptr thrown;
  try {
    outcome.code = run();
  } catch (...) {
    thrown = std::current_exception();
  }
  outcome.out = out.end();
  outcome.err = err.end();
  if (thrown) std::rethrow_exception(thrown);
  return outcome;
}

/// A run's folder with checkpoints of steps 1 and 2.
struct SmallRun {
  ScratchFolder folder;
  SmallRun() {
    distributed::CheckpointWriter writer(folder / "checkpoints", solo_mesh(), 0, false);
    for (const int64_t step : {1, 2}) writer.save(step, small_content(step));
  }
  std::string step(int64_t step) const {
    return folder / ("checkpoints/step-0000000" + std::to_string(step));
  }
};

}  // namespace

TEST_CASE("inspect tells what a checkpoint holds", "[cli-inspect]") {
  const SmallRun run;
  const auto text = inspect({run.step(2), "--verify", "--tensors"});
  CHECK(text.code == 0);
  CHECK(text.err.empty());
  CHECK_THAT(text.out, Contains("step        2\n"));
  CHECK_THAT(text.out, Contains("written on  dp 1, edp 1, ep 1, pp 1, world 1\n"));
  CHECK_THAT(text.out, Contains("parameters  15"));
  CHECK_THAT(text.out, Contains("  layer.weight F32 [3, 4]\n"));
  CHECK_THAT(text.out, Contains("model-00001-of-00001.safetensors"));
  CHECK_THAT(text.out, Contains("verified    every byte\n"));

  const auto json = nlohmann::json::parse(inspect({run.step(2), "--json"}).out);
  CHECK(json["step"] == 2);
  CHECK(json["mesh"]["world"] == 1);
  CHECK(json["parameters"] == 15);
  CHECK(json["parameters_by_dtype"] == nlohmann::json{{"BF16", 3}, {"F32", 12}});
  CHECK(json["optimizer"] == nlohmann::json{{"exp_avg", 12}});
  CHECK(json["state"]["lr"] == 0.1);
  CHECK(json["faults"].empty());
  CHECK_FALSE(json.contains("verified"));
}

TEST_CASE("inspect lists a run's checkpoints, and names every fault", "[cli-inspect]") {
  const SmallRun run;
  for (const std::string& dir : {run.folder.path, run.folder / "checkpoints"}) {
    const auto json = nlohmann::json::parse(inspect({dir, "--json", "--verify"}).out);
    REQUIRE(json["checkpoints"].size() == 2);
    CHECK(json["checkpoints"][0]["step"] == 2);
    CHECK(json["checkpoints"][0]["good"] == true);
    CHECK(json["verified"] == true);
  }
  const std::string shard = run.step(1) + "/optimizer-00001-of-00001.safetensors";
  std::string bytes = read_bytes(shard);
  bytes.back() ^= 1;
  write_bytes(shard, bytes);
  fs::remove(run.step(1) + "/config.json");
  CHECK(inspect({run.step(2), "--verify"}).code == 0);
  for (const std::string& dir : {run.folder.path, run.step(1)}) {
    const auto found = inspect({dir, "--verify"});
    CHECK(found.code == 2);
    CHECK(std::count(found.err.begin(), found.err.end(), '\n') == 2);
    CHECK_THAT(found.err, Contains(shard + ": tensor layer.weight#exp_avg, elements [5, 12)"));
    CHECK_THAT(found.err, Contains(run.step(1) + "/config.json: missing"));
    CHECK_THAT(found.out, !Contains("every byte"));
  }
  CHECK_THAT(inspect({run.folder.path, "--verify"}).out, Contains("DAMAGED"));
  CHECK(inspect({run.step(1)}).code == 2);  // The missing file is seen without reading any.

  // A checkpoint without its manifest is not a model folder.
  fs::remove(run.step(2) + "/manifest.json");
  fs::remove(run.step(2) + "/optimizer-00001-of-00001.safetensors");
  for (const char* slash : {"", "/"}) {
    const auto found = inspect({run.step(2) + slash});
    CHECK(found.code == 2);
    CHECK_THAT(found.err, Contains("manifest.json: No such file"));
  }
}

TEST_CASE("inspect says what it would take for something to look at", "[cli-inspect]") {
  const ScratchFolder folder;
  CHECK_THROWS_WITH(inspect({folder / "none"}), Contains("no such file or folder"));
  CHECK_THROWS_WITH(inspect({folder.path}), Contains("holds neither manifest.json"));
  fs::create_directories(folder / "run/checkpoints");
  CHECK_THAT(inspect({folder / "run"}).out, Contains("0 checkpoints"));
  write_bytes(folder / "a.safetensors", "12345678");
  CHECK_THROWS_AS(inspect({folder / "a.safetensors"}), InputError);
  write_bytes(folder / "model.safetensors", "12345678");
  write_bytes(folder / "config.json", "{");
  const auto found = inspect({folder.path});
  CHECK(found.code == 2);
  CHECK(std::count(found.err.begin(), found.err.end(), '\n') == 2);
}

TEST_CASE("parameters are counted by kind, and those that a token uses", "[cli-inspect]") {
  const std::string layer = "model.layers.1.";
  std::vector<cli::TensorInfo> tensors;
  const auto add = [&](const std::string& name, std::vector<int64_t> shape) {
    tensors.push_back({name, at::kFloat, std::move(shape)});
  };
  add("model.embed_tokens.weight", {10, 4});
  add("lm_head.weight", {10, 4});
  add(layer + "self_attn.kv_a_layernorm.weight", {3});
  add(layer + "self_attn.o_proj.weight", {4, 4});
  add(layer + "input_layernorm.weight", {4});
  add(layer + "mlp.gate.weight", {8, 4});
  add(layer + "mlp.gate.e_score_correction_bias", {8});
  for (int i = 0; i < 8; ++i)
    add(layer + "mlp.experts." + std::to_string(i) + ".up_proj.weight", {5, 4});
  add(layer + "mlp.shared_experts.up_proj.weight", {5, 4});
  add("model.layers.0.mlp.up_proj.weight", {7, 4});
  add("model.layers.2.eh_proj.weight", {4, 8});
  add("model.norm.weight", {4});
  const nlohmann::json config{{"n_routed_experts", 8}, {"num_experts_per_tok", 2}};
  const auto summary = cli::summarise(tensors, config);
  using Counts = std::vector<std::pair<std::string, int64_t>>;
  CHECK(summary.by_kind == Counts{{"embeddings and head", 80},
                                  {"attention", 19},
                                  {"dense MLP", 28},
                                  {"shared experts", 20},
                                  {"routed experts", 160},
                                  {"router", 40},
                                  {"norms", 8},
                                  {"other", 32}});
  CHECK(summary.parameters == 387);
  CHECK(summary.active == 387 - 160 + 40);
  CHECK_FALSE(cli::summarise(tensors, nullptr).active);
  CHECK(cli::grouped(15123456) == "15,123,456");
  CHECK(cli::grouped(123) == "123");
  CHECK(cli::readable_bytes(999) == "999 B");
  CHECK(cli::readable_bytes(31249999) == "31.2 MB");
  CHECK(cli::readable_bytes(999960) == "1.0 MB");
}

TEST_CASE("inspect reads the reference models", "[cli-inspect][parity]") {
  for (const auto& model : tests::cases("deepseek_v3")) {
    CAPTURE(model);
    const auto found = inspect({model.string(), "--json", "--tensors"});
    CHECK(found.code == 0);
    const auto json = nlohmann::json::parse(found.out);
    int64_t elements = 0;
    for (const auto& [name, value] : core::read_safetensors(model.string()))
      elements += value.numel();
    CHECK(json["parameters"] == elements);
    CHECK(json["active_parameters"] < elements);
    CHECK(json["model_type"] == "deepseek_v3");
    CHECK(json["tensors"].size() == json["num_tensors"]);
    CHECK_FALSE(json["parameters_by_kind"].contains("other"));
  }
}
