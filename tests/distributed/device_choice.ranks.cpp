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

TEST_CASE("Ranks with a GPU each pass the checks", "[distributed][device][ranks2][ranks4]") {
  const std::string text = refusal(fmt::format("GPU-{}", world_rank()));
  CAPTURE(text);
  CHECK(text.find("each rank has a GPU of its own") != std::string::npos);
}
