#include "distributed/checkpoint.h"

#include <thread>

#include "core/base/error.h"
#include "core/io/safetensors.h"
#include "tests/catch.h"
#include "tests/distributed/checkpoint_cases.h"

using namespace cohort;
using namespace cohort::distributed;
using namespace cohort::tests;
using Catch::Contains;

namespace {

constexpr bool kSync = false, kAsync = true;

/// One checkpoint of small_content(step) and its folder.
std::string write_small(const std::string& folder, int64_t step, int64_t keep = 0) {
  CheckpointWriter writer(folder, make_local_mesh(), keep, kSync);
  writer.save(step, small_content(step));
  REQUIRE(writer.finish());
  return checkpoints_in(folder).front().path;
}

}  // namespace

TEST_CASE("a checkpoint gives back tensors of every dtype, whole and in part, and its state",
          "[distributed-checkpoint]") {
  const ScratchFolder folder;
  CheckpointContent content = small_content(40);
  const auto base = at::arange(-3, 11, at::kDouble);
  for (const auto dtype : {at::kDouble,
                           at::kFloat,
                           at::kHalf,
                           at::kBFloat16,
                           at::kLong,
                           at::kInt,
                           at::kShort,
                           at::kChar,
                           at::kBool})
    content.model.push_back(whole(std::string("t.") + c10::toString(dtype), base.to(dtype)));
  content.model.push_back(whole("scalar", at::scalar_tensor(2.5, at::kDouble)));
  content.model.push_back(whole("empty", at::empty({0, 3}, at::kFloat)));
  const auto given = content;
  CheckpointWriter writer(folder / "checkpoints", make_local_mesh(), 3, kAsync);
  CHECK(writer.finish());
  writer.save(40, std::move(content));
  REQUIRE(writer.finish());

  const std::string path = folder / "checkpoints/step-00000040";
  const CheckpointReader reader(path);
  CHECK(reader.verify() == std::vector<std::string>{});
  CHECK(reader.state() == given.state);
  CHECK(reader.manifest()["step"] == 40);
  CHECK(reader.manifest()["mesh"]["world"] == 1);
  CHECK(reader.names().size() == given.model.size() + 1);
  for (const auto& slice : given.model) {
    CAPTURE(slice.name);
    CHECK(reader.shape(slice.name) == slice.shape);
    CHECK(same_bytes(reader.tensor(slice.name), slice.data));
  }
  const auto moments = at::arange(12, at::kFloat) + 40;
  CHECK(same_bytes(reader.tensor("layer.weight#exp_avg"), moments.view({3, 4})));
  for (int64_t begin = 0; begin <= 12; ++begin)
    for (int64_t end = begin; end <= 12; ++end)
      CHECK(same_bytes(reader.elements("layer.weight#exp_avg", begin, end, at::kDouble),
                       moments.slice(0, begin, end).to(at::kDouble)));
  CHECK_FALSE(reader.has("other"));
  CHECK_THROWS_WITH(reader.tensor("other"), Contains("has no tensor other"));
  CHECK_THROWS_AS(reader.elements("layer.bias", 0, 4, at::kFloat), Error);
  CHECK(names_in(path) == std::vector<std::string>{"config.json",
                                                   "manifest.json",
                                                   "model-00001-of-00001.safetensors",
                                                   "model.safetensors.index.json",
                                                   "optimizer-00001-of-00001.safetensors"});
}

TEST_CASE("other tools can open a checkpoint as a model folder", "[distributed-checkpoint]") {
  const ScratchFolder folder;
  const std::string path = write_small(folder.path, 3);
  const auto tensors = core::read_safetensors(path);
  REQUIRE(tensors.size() == 2);
  CHECK(at::equal(tensors.at("layer.weight"), small_content(3).model[0].data));
  CHECK(read_bytes(path + "/config.json") == "{\"hidden_size\": 4}\n");
  const core::SafetensorsFile shard(path + "/model-00001-of-00001.safetensors");
  CHECK(shard.metadata().at("format") == "pt");
}

TEST_CASE("a flipped bit anywhere in a checkpoint is found and its file is named",
          "[distributed-checkpoint]") {
  const ScratchFolder folder;
  const std::string path = write_small(folder.path, 7);
  REQUIRE(verify_checkpoint(path).empty());
  for (const auto& name : names_in(path)) {
    const std::string file = path + "/" + name;
    const std::string original = read_bytes(file);
    const bool is_shard = fs::path(name).extension() == ".safetensors";
    const size_t data_begin =
        is_shard ? original.size() - (name[0] == 'm' ? 12 * 4 + 3 * 2 : 12 * 4) : original.size();
    for (size_t at = 0; at < original.size(); at += name == "manifest.json" ? 3 : 1) {
      std::string flipped = original;
      flipped[at] = static_cast<char>(flipped[at] ^ (1 << (at % 8)));
      write_bytes(file, flipped);
      const auto faults = verify_checkpoint(path);
      INFO(name << " at byte " << at);
      REQUIRE(faults.size() == 1);
      REQUIRE_THAT(faults[0], Contains(file));
      if (is_shard) REQUIRE_THAT(faults[0], Contains(at < data_begin ? "header" : "tensor layer."));
    }
    write_bytes(file, original);
  }
  REQUIRE(verify_checkpoint(path).empty());
}

TEST_CASE("reading a damaged slice is refused, reading beside it is not",
          "[distributed-checkpoint]") {
  const ScratchFolder folder;
  const std::string path = write_small(folder.path, 7);
  const std::string file = path + "/optimizer-00001-of-00001.safetensors";
  std::string bytes = read_bytes(file);
  bytes.back() = static_cast<char>(bytes.back() ^ 1);
  write_bytes(file, bytes);
  const CheckpointReader reader(path);
  const std::string name = "layer.weight#exp_avg";
  CHECK(at::equal(reader.elements(name, 0, 5, at::kFloat), at::arange(7, 12, at::kFloat)));
  for (int again = 0; again < 2; ++again)
    CHECK_THROWS_WITH(reader.elements(name, 4, 6, at::kFloat),
                      Contains(file) && Contains("tensor " + name + ", elements [5, 12): damaged"));
}

TEST_CASE("a cut, missing or longer file of a checkpoint is found and named",
          "[distributed-checkpoint]") {
  const ScratchFolder folder;
  const std::string path = write_small(folder.path, 7);
  for (const auto& name : names_in(path)) {
    const std::string file = path + "/" + name;
    const std::string original = read_bytes(file);
    CAPTURE(name);
    const auto fault = [&] {
      const auto faults = verify_checkpoint(path);
      REQUIRE_FALSE(faults.empty());
      CHECK_THAT(faults[0], Contains(file));
      CHECK_THROWS_AS(CheckpointReader(path), InputError);
      return faults[0];
    };
    const bool is_manifest = name == "manifest.json";
    for (const size_t size : {size_t{0}, size_t{5}, original.size() / 2, original.size() - 1}) {
      write_bytes(file, original.substr(0, size));
      const std::string said = fault();
      if (!is_manifest) CHECK_THAT(said, Contains("cut short"));
      if (fs::path(name).extension() == ".safetensors")
        CHECK_THAT(said, Contains("incomplete: tensor layer."));
    }
    write_bytes(file, original + "x");
    CHECK_THAT(fault(), Contains(is_manifest ? "damaged" : "1 bytes longer"));
    fs::remove(file);
    CHECK_THAT(fault(), Contains(is_manifest ? "No such file" : "missing"));
    fs::create_directory(file);
    CHECK_THAT(fault(), Contains("not a regular file"));
    fs::remove(file);
    write_bytes(file, original);
  }
  CHECK(verify_checkpoint(path).empty());
  CHECK_THAT(verify_checkpoint(folder / "step-00000009").at(0), Contains("No such file"));
}

TEST_CASE("the newest good checkpoint is found, and the damaged ones before it are named",
          "[distributed-checkpoint]") {
  const ScratchFolder folder;
  const auto mesh = make_local_mesh();
  CHECK_FALSE(newest_good_checkpoint(folder / "none", mesh));
  CHECK_FALSE(newest_good_checkpoint(folder.path, mesh));
  for (const int64_t step : {9, 10, 100}) write_small(folder.path, step);
  fs::create_directory(folder / "step-notes");
  fs::create_directory(folder / ".tmp-step-00000200");
  CHECK(newest_good_checkpoint(folder.path, mesh) == folder / "step-00000100");

  const std::string shard = folder / "step-00000100/model-00001-of-00001.safetensors";
  std::string bytes = read_bytes(shard);
  bytes[bytes.size() - 1] ^= 8;
  write_bytes(shard, bytes);
  fs::remove(folder / "step-00000010/manifest.json");
  {
    const CapturedLog log;
    CHECK(newest_good_checkpoint(folder.path, mesh) == folder / "step-00000009");
    CHECK(log.lines() == 2);
    CHECK_THAT(log.text(),
               Contains("warning: passes over checkpoint " + (folder / "step-00000100") + ": " +
                        shard + ": tensor layer.bias"));
    CHECK_THAT(log.text(), Contains("step-00000010/manifest.json: No such file"));
  }
  fs::resize_file(folder / "step-00000009/config.json", 3);
  const CapturedLog log;
  CHECK_THROWS_WITH(newest_good_checkpoint(folder.path, mesh),
                    Contains("none of its 3 checkpoints is good") && Contains(shard));
}

TEST_CASE("a save that fails says why once, touches nothing, and the next one works",
          "[distributed-checkpoint]") {
  const ScratchFolder folder;
  const bool async = GENERATE(kSync, kAsync);
  CheckpointWriter writer(folder / "c", make_local_mesh(), 1, async);
  writer.save(1, small_content(1));
  REQUIRE(writer.finish());
  const auto fails = [&](CheckpointContent content, const std::string& reason) {
    const CapturedLog log;
    writer.save(2, std::move(content));
    CHECK_FALSE(writer.finish());
    CHECK_THAT(log.text(), Contains("error: the checkpoint of step 2 was not written"));
    CHECK_THAT(log.text(), Contains(reason));
    CHECK(log.lines() == 1);
    CHECK(names_in(folder / "c") == std::vector<std::string>{"step-00000001"});
    CHECK(verify_checkpoint(folder / "c/step-00000001").empty());
  };
  CheckpointContent large = small_content(2);
  large.model.push_back(whole("large", at::zeros({1 << 18})));
  {
    const SmallDisk full(1 << 19);
    fails(large, "model-00001-of-00001.safetensors: File too large");
  }
  CheckpointContent text = small_content(2);
  text.files.push_back({"tokenizer.json", std::string(1 << 20, ' ')});
  {
    const SmallDisk full(1 << 19);
    fails(text, "tokenizer.json: File too large");
  }
  {
    const SmallDisk full(600);  // Every file fits but the manifest.
    fails(small_content(2), "manifest.json: File too large");
  }
  CheckpointContent gap = small_content(2);
  gap.optimizer.pop_back();
  fails(gap, "layer.weight#exp_avg has only 5 of its 12 elements");
  CheckpointContent twice = small_content(2);
  twice.optimizer.push_back(twice.optimizer.back());
  twice.optimizer.back().begin = 4;
  twice.optimizer.back().data = at::zeros({8});
  fails(twice, "layer.weight#exp_avg has elements [4, 12) where a slice from 5 on is due");
  CheckpointContent escape = small_content(2);
  escape.files.push_back({"../outside", ""});
  fails(escape, "'../outside' is not a file name");
  CheckpointContent binary = small_content(2);
  binary.state["text"] = "\xff";
  fails(binary, "cannot be written as JSON");

  fs::rename(folder / "c", folder / "elsewhere");
  {
    const CapturedLog log;
    writer.save(2, small_content(2));
    CHECK_FALSE(writer.finish());
    CHECK_THAT(log.text(), Contains("c/.tmp-step-00000002: No such file or directory"));
  }
  fs::rename(folder / "elsewhere", folder / "c");
  writer.save(2, large);
  CHECK(writer.finish());
  CHECK(verify_checkpoint(folder / "c/step-00000002").empty());
  CHECK(steps_in(folder / "c") == std::vector<int64_t>{2});  // keep 1
}

TEST_CASE("only the newest K checkpoints stay, and never fewer good ones",
          "[distributed-checkpoint]") {
  const ScratchFolder folder;
  using Steps = std::vector<int64_t>;
  const auto save = [](CheckpointWriter& writer, int64_t step) {
    writer.save(step, small_content(step));
    REQUIRE(writer.finish());
  };
  {
    CheckpointWriter writer(folder.path, make_local_mesh(), 2, kAsync);
    for (const int64_t step : {10, 20, 30}) save(writer, step);
    CHECK(steps_in(folder.path) == Steps{30, 20});
  }
  // A later run counts what it finds, as far as the files are there.
  fs::resize_file(folder / "step-00000030/config.json", 1);
  CheckpointWriter writer(folder.path, make_local_mesh(), 2, kAsync);
  save(writer, 40);
  CHECK(steps_in(folder.path) == Steps{40, 30, 20});  // 30 is broken: 20 is the second good one.
  save(writer, 50);
  CHECK(steps_in(folder.path) == Steps{50, 40});
  {
    // Resumed before 40, having passed 40 and 50 over: those are not counted and not touched.
    CheckpointWriter resumed(folder.path, make_local_mesh(), 1, kAsync);
    save(resumed, 35);
    CHECK(steps_in(folder.path) == Steps{50, 40, 35});
    save(resumed, 40);  // Replaces the one that is there.
    CHECK(steps_in(folder.path) == Steps{50, 40});
    CHECK(names_in(folder.path).size() == 2);
    save(resumed, 60);
    CHECK(steps_in(folder.path) == Steps{60});
  }
  CheckpointWriter keeps_all(folder.path, make_local_mesh(), 0, kSync);
  for (const int64_t step : {70, 80, 90}) save(keeps_all, step);
  CHECK(steps_in(folder.path) == Steps{90, 80, 70, 60});
  CHECK(CheckpointReader(folder / "step-00000090").state()["step"] == 90);
}

TEST_CASE("saving a step again replaces it whole", "[distributed-checkpoint]") {
  const ScratchFolder folder;
  CheckpointWriter writer(folder.path, make_local_mesh(), 3, kSync);
  writer.save(5, small_content(5));
  auto other = small_content(6);
  other.optimizer.clear();
  writer.save(5, other);
  REQUIRE(writer.finish());
  CHECK(names_in(folder.path) == std::vector<std::string>{"step-00000005"});
  const CheckpointReader reader(folder / "step-00000005");
  CHECK(reader.state()["step"] == 6);
  CHECK_FALSE(fs::exists(folder / "step-00000005/optimizer-00001-of-00001.safetensors"));
}

TEST_CASE("what a dead run left is removed, and what it was about to replace comes back",
          "[distributed-checkpoint]") {
  const ScratchFolder folder;
  for (const int64_t step : {1, 2, 3}) write_small(folder.path, step);
  fs::rename(folder / "step-00000003", folder / ".old-step-00000003");
  fs::copy(folder / "step-00000002", folder / ".old-step-00000002");
  fs::create_directories(folder / ".tmp-step-00000004/inner");
  write_bytes(folder / ".tmp-step-00000004/model-00001-of-00001.safetensors", "half");
  fs::create_directories(folder / ".del-step-00000000");
  fs::create_directories(folder / ".tmp-notes");  // Not ours.
  CHECK(newest_good_checkpoint(folder.path, make_local_mesh()) == folder / "step-00000003");
  const CheckpointWriter writer(folder.path, make_local_mesh(), 3, kAsync);
  CHECK(names_in(folder.path) ==
        std::vector<std::string>{".tmp-notes", "step-00000001", "step-00000002", "step-00000003"});
  CHECK(verify_checkpoint(folder / "step-00000003").empty());

  write_bytes(folder / "file", "");
  CHECK_THROWS_AS(CheckpointWriter(folder / "file", make_local_mesh(), 3, kAsync), InputError);
  CHECK_THROWS_AS(CheckpointWriter(folder / "file/under", make_local_mesh(), 3, kAsync),
                  InputError);
}

TEST_CASE("training on after save() does not change what is saved", "[distributed-checkpoint]") {
  const ScratchFolder folder;
  CheckpointWriter writer(folder.path, make_local_mesh(), 2, kAsync);
  auto weight = at::full({1 << 22}, 1.0), moment = at::full({1 << 22}, 1.0);
  for (const int64_t step : {1, 2, 3}) {
    CheckpointContent content;
    content.model = {whole("w", weight)};
    content.optimizer = {whole("w#exp_avg", moment)};
    writer.save(step, std::move(content));
    weight.add_(1);
    moment.add_(1);
  }
  // poll() alone brings it to an end too.
  while (!fs::exists(folder / "step-00000003")) {
    writer.poll();
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  REQUIRE(writer.finish());
  const CheckpointReader reader(folder / "step-00000003");
  for (const char* name : {"w", "w#exp_avg"}) CHECK((reader.tensor(name) == 3).all().item<bool>());
}
