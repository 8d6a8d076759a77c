// Checkpoints written by several ranks at once.
#include <exception>
#include <thread>

#include "core/base/error.h"
#include "core/io/safetensors.h"
#include "distributed/checkpoint.h"
#include "tests/catch.h"
#include "tests/distributed/checkpoint_cases.h"

using namespace cohort;
using namespace cohort::distributed;
using namespace cohort::tests;
using Catch::Contains;

namespace {

/// A scratch folder of rank 0's that all ranks know.
struct SharedFolder {
  Communicator& world;
  std::optional<ScratchFolder> own;
  std::string path;

  explicit SharedFolder(const Mesh& mesh) : world(*mesh.world) {
    if (world.rank() == 0) own.emplace();
    path = world.all_gather_text(own ? own->path : "")[0];
  }
  ~SharedFolder() {
    if (std::uncaught_exceptions() == 0) world.barrier();
  }
  std::string operator/(const std::string& name) const { return path + "/" + name; }
};

constexpr int64_t kTensors = 7;

std::vector<int64_t> shape_of(int64_t tensor) { return {tensor + 1, 5}; }
std::string name_of(int64_t tensor) { return "layers." + std::to_string(tensor) + ".weight"; }
at::Tensor weight_of(int64_t tensor, int64_t step) {
  return (at::arange((tensor + 1) * 5, at::kFloat) + 100.0 * tensor + 0.5 * step)
      .view(shape_of(tensor));
}
at::Tensor moment_of(int64_t tensor, int64_t step) {
  return weight_of(tensor, step).flatten() * -3;
}

/// What rank `rank` of `ranks` gives: every ranks-th tensor whole, and its even share of all
/// moments.
CheckpointContent share_of(int64_t step, int rank, int ranks) {
  CheckpointContent content;
  for (int64_t i = 0; i < kTensors; ++i) {
    if (i % ranks == rank) content.model.push_back(whole(name_of(i), weight_of(i, step)));
    const int64_t numel = (i + 1) * 5, begin = numel * rank / ranks,
                  end = numel * (rank + 1) / ranks;
    content.optimizer.push_back({name_of(i) + "#exp_avg",
                                 shape_of(i),
                                 begin,
                                 end,
                                 moment_of(i, step).slice(0, begin, end)});
  }
  content.state = {{"step", step}, {"rank", rank}};
  content.files = {{"config.json", "{}"}};
  return content;
}

/// Every rank reads all the weights, and the share of the moments that it has among `ranks`.
void check_content(const std::string& path, int64_t step, int rank, int ranks) {
  const CheckpointReader reader(path);
  CHECK(reader.state() == nlohmann::json{{"step", step}, {"rank", 0}});
  CHECK(reader.names().size() == 2 * kTensors);
  for (int64_t i = 0; i < kTensors; ++i) {
    CHECK(same_bytes(reader.tensor(name_of(i)), weight_of(i, step)));
    const int64_t numel = (i + 1) * 5, begin = numel * rank / ranks,
                  end = numel * (rank + 1) / ranks;
    CHECK(same_bytes(reader.elements(name_of(i) + "#exp_avg", begin, end, at::kFloat),
                     moment_of(i, step).slice(0, begin, end)));
  }
}

}  // namespace

TEST_CASE("a checkpoint of several ranks loads on one, and one of one rank on several",
          "[distributed-checkpoint][ranks1][ranks2][ranks4]") {
  const Mesh mesh = make_mesh({});
  const int rank = mesh.shape.rank, ranks = mesh.shape.world;
  const SharedFolder folder(mesh);
  {
    CheckpointWriter writer(folder / "many", mesh, 2, true);
    for (const int64_t step : {1, 2, 3}) writer.save(step, share_of(step, rank, ranks));
    CHECK(writer.finish());
  }
  if (rank == 0) {
    CheckpointWriter writer(folder / "one", solo_mesh(), 2, false);
    writer.save(3, share_of(3, 0, 1));
    CHECK(writer.finish());
  }
  mesh.world->barrier();
  CHECK(steps_in(folder / "many") == std::vector<int64_t>{3, 2});
  const auto newest = newest_good_checkpoint(folder / "many", mesh);
  REQUIRE(newest == folder / "many/step-00000003");
  check_content(*newest, 3, 0, 1);
  check_content(folder / "many/step-00000002", 2, rank, ranks);
  check_content(folder / "one/step-00000003", 3, rank, ranks);
  const CheckpointReader reader(*newest);
  CHECK(reader.manifest()["mesh"]["world"] == ranks);
  CHECK(reader.verify().empty());
  CHECK(names_in(*newest).size() == static_cast<size_t>(3 + 2 * ranks));
  CHECK(core::read_safetensors(*newest).size() == kTensors);
}

TEST_CASE("training polls until all ranks have written, and then the checkpoint is there",
          "[distributed-checkpoint][ranks1][ranks2][ranks4]") {
  const Mesh mesh = make_mesh({});
  const int rank = mesh.shape.rank, ranks = mesh.shape.world;
  const SharedFolder folder(mesh);
  CheckpointWriter writer(folder / "c", mesh, 0, true);
  writer.poll();
  auto content = share_of(5, rank, ranks);
  // One rank is slower than the others.
  if (rank == ranks - 1) content.model.push_back(whole("large", at::ones({1 << 20})));
  writer.save(5, std::move(content));
  bool there = false;
  for (int step = 0; step < 10000 && !there; ++step) {
    writer.poll();
    there =
        mesh.world->all_gather_text(fs::exists(folder / "c/step-00000005") ? "+" : "-")[0] == "+";
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  CHECK(there);
  CHECK(writer.finish());
  CHECK(verify_checkpoint(folder / "c/step-00000005").empty());
}

TEST_CASE("a rank that has nothing to write writes no file",
          "[distributed-checkpoint][ranks2][ranks4]") {
  const Mesh mesh = make_mesh({});
  const SharedFolder folder(mesh);
  CheckpointWriter writer(folder / "c", mesh, 0, true);
  CheckpointContent content;
  if (mesh.shape.rank == 1) content = share_of(1, 0, 1);
  content.state = {{"step", 1}, {"rank", mesh.shape.rank}};
  writer.save(1, std::move(content));
  REQUIRE(writer.finish());
  check_content(folder / "c/step-00000001", 1, 0, 1);
  const std::string of = fmt::format("-00002-of-{:05}.safetensors", mesh.shape.world);
  CHECK(names_in(folder / "c/step-00000001") ==
        std::vector<std::string>{
            "manifest.json", "model" + of, "model.safetensors.index.json", "optimizer" + of});
}

TEST_CASE("a disk that is full for one rank costs one checkpoint on all",
          "[distributed-checkpoint][ranks2][ranks4]") {
  const Mesh mesh = make_mesh({});
  const int rank = mesh.shape.rank, ranks = mesh.shape.world;
  const SharedFolder folder(mesh);
  CheckpointWriter writer(folder / "c", mesh, 1, true);
  writer.save(1, share_of(1, rank, ranks));
  CHECK(writer.finish());
  {
    const CapturedLog log;
    std::optional<SmallDisk> full;
    if (rank == 1) full.emplace(100);
    writer.save(2, share_of(2, rank, ranks));
    CHECK_FALSE(writer.finish());
    CHECK(log.lines() == (rank == 0));
    if (rank == 0)
      CHECK_THAT(log.text(), Contains("rank 1: cannot write") && Contains("too large"));
  }
  mesh.world->barrier();
  CHECK(names_in(folder / "c") == std::vector<std::string>{"step-00000001"});
  CHECK(newest_good_checkpoint(folder / "c", mesh) == folder / "c/step-00000001");
  mesh.world->barrier();
  writer.save(2, share_of(2, rank, ranks));
  CHECK(writer.finish());
  CHECK(steps_in(folder / "c") == std::vector<int64_t>{2});
  check_content(folder / "c/step-00000002", 2, rank, ranks);
}

TEST_CASE("damage that only one rank looked at is known to all",
          "[distributed-checkpoint][ranks1][ranks2][ranks4]") {
  const Mesh mesh = make_mesh({});
  const int rank = mesh.shape.rank, ranks = mesh.shape.world;
  const SharedFolder folder(mesh);
  {
    CheckpointWriter writer(folder / "c", mesh, 0, false);
    for (const int64_t step : {1, 2}) writer.save(step, share_of(step, rank, ranks));
  }
  const auto damage = [&](const std::string& path) {
    mesh.world->barrier();
    if (rank == 0) {
      std::string bytes = read_bytes(path);
      bytes[bytes.size() - 2] ^= 4;
      write_bytes(path, bytes);
    }
    mesh.world->barrier();
  };
  const CapturedLog log;
  const std::string last = fmt::format("/optimizer-{0:05}-of-{0:05}.safetensors", ranks);
  damage(folder / "c/step-00000002" + last);
  CHECK(newest_good_checkpoint(folder / "c", mesh) == folder / "c/step-00000001");
  CHECK(log.lines() == (rank == 0));
  if (rank == 0) CHECK_THAT(log.text(), Contains(last + ": tensor layers."));
  damage(folder / "c/step-00000001/config.json");
  CHECK_THROWS_WITH(newest_good_checkpoint(folder / "c", mesh), Contains("none of its 2"));
}

TEST_CASE("a folder that cannot be made stops every rank", "[distributed-checkpoint][ranks2]") {
  const Mesh mesh = make_mesh({});
  const SharedFolder folder(mesh);
  if (mesh.shape.rank == 0) write_bytes(folder / "file", "");
  mesh.world->barrier();
  CHECK_THROWS_AS(CheckpointWriter(folder / "file/c", mesh, 0, true), InputError);
}
