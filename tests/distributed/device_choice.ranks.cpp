#include "distributed/device_choice.h"

#include <fmt/format.h>

#include "core/base/error.h"
#include "distributed/launch.h"
#include "tests/catch.h"

using namespace cohort::distributed;

namespace {

std::string refusal(const std::string& uuid) {
  try {
    choose_device("cuda", [&] { return std::vector<VisibleGpu>{{uuid, "a card"}}; });
  } catch (const cohort::InputError& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("Every rank refuses alike when two would share a GPU, before anything is allocated",
          "[distributed][device][ranks2][ranks4]") {
  const std::string text = refusal("GPU-one");
  CAPTURE(text);
  CHECK(text.find("run.device=cuda: rank 1 on host ") == 0);
  CHECK(text.find(" would share GPU-one with rank 0,") != std::string::npos);
  CHECK(text.find(fmt::format(": {} ranks on ", world_size())) != std::string::npos);
}

TEST_CASE("Ranks with a GPU each take it, and the n-th rank the n-th of those all see",
          "[distributed][device][ranks2][ranks4]") {
  const auto own = [] {
    return std::vector<VisibleGpu>{{fmt::format("GPU-{}", world_rank()), "a card"}};
  };
  const auto all = [] {
    std::vector<VisibleGpu> gpus;
    for (int i = 0; i < world_size(); ++i) gpus.push_back({fmt::format("GPU-{}", i), "a card"});
    return gpus;
  };
  for (const char* wanted : {"cuda", "auto"}) {
    CHECK(choose_device(wanted, own) == at::Device(at::kCUDA, 0));
    CHECK(choose_device(wanted, all) ==
          at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(world_rank())));
  }
  CHECK(choose_device("auto", [] { return std::vector<VisibleGpu>(); }) == at::Device(at::kCPU));
}

TEST_CASE("auto refuses a job of which some ranks see no GPU", "[distributed][device][ranks2]") {
  std::string text;
  try {
    choose_device("auto", [] {
      return world_rank() == 0 ? std::vector<VisibleGpu>{{"GPU-0", "a card"}}
                               : std::vector<VisibleGpu>();
    });
  } catch (const cohort::InputError& error) {
    text = error.what();
  }
  CHECK(text.find("run.device=auto: rank 1 on host ") == 0);
  CHECK(text.find("sees no GPU") != std::string::npos);
}
