#include "distributed/device_choice.h"

#include "core/base/error.h"
#include "tests/catch.h"

using namespace cohort::distributed;

namespace {

constexpr const char* kTag = "[distributed][device]";

std::string refusal(const std::vector<RankGpus>& ranks) {
  try {
    assign_gpus(ranks);
  } catch (const cohort::InputError& error) {
    return error.what();
  }
  return "";
}

bool holds(const std::string& text, const std::string& part) {
  CAPTURE(text, part);
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("The n-th rank of a machine takes its n-th GPU", kTag) {
  const std::vector<std::string> a{"GPU-a0", "GPU-a1"}, b{"GPU-b0", "GPU-b1", "GPU-b2"};
  CHECK(assign_gpus({{"a", a}, {"a", a}, {"b", b}, {"b", b}}) == std::vector{0, 1, 0, 1});
  // Ranks dealt out in turn.
  CHECK(assign_gpus({{"a", a}, {"b", b}, {"a", a}, {"b", b}}) == std::vector{0, 0, 1, 1});
}

TEST_CASE("A launcher that gives each rank its own GPU is obeyed", kTag) {
  CHECK(assign_gpus({{"a", {"GPU-1"}}, {"a", {"GPU-0"}}}) == std::vector{0, 0});
}

TEST_CASE("More ranks than GPUs on a machine are refused with rank, host and UUID", kTag) {
  const std::vector<std::string> two{"GPU-0", "GPU-1"};
  const std::string text = refusal({{"n1", two}, {"n1", two}, {"n1", two}, {"n2", {"GPU-9"}}});
  CHECK(holds(text, "run.device=cuda: rank 2 on host n1 would share GPU-0 with rank 0,"));
  CHECK(holds(text, "3 ranks on n1 see 2 GPUs"));
  CHECK(holds(text, "--map-by ppr:2:node"));
  CHECK(text.find('\n') == std::string::npos);
}

TEST_CASE("Two ranks on one GPU are refused, though there are enough GPUs", kTag) {
  const std::string text = refusal({{"n1", {"GPU-0"}}, {"n1", {"GPU-1"}}, {"n1", {"GPU-1"}}});
  CHECK(holds(text, "rank 2 on host n1 would share GPU-1 with rank 1,"));
}

TEST_CASE("Two names of one machine do not hide a shared GPU", kTag) {
  const std::string text = refusal({{"box-a", {"GPU-0"}}, {"box-b", {"GPU-0"}}});
  CHECK(holds(text, "rank 1 on host box-b would share GPU-0 with rank 0 on host box-a,"));
}

TEST_CASE("A rank that sees no GPU is named; a lone one by its host", kTag) {
  CHECK(holds(refusal({{"n1", {"GPU-0"}}, {"n2", {}}}), "rank 1 on host n2 sees no GPU;"));
  CHECK(holds(refusal({{"n1", {}}}), "run.device=cuda: host n1 sees no GPU;"));
}

TEST_CASE("UUIDs are written as nvidia-smi writes them", kTag) {
  unsigned char bytes[16];
  for (int i = 0; i < 16; ++i) bytes[i] = static_cast<unsigned char>(17 * i);
  CHECK(gpu_uuid_text(bytes) == "GPU-00112233-4455-6677-8899-aabbccddeeff");
}

TEST_CASE("cpu asks for no GPU; auto takes one where there is one; cuda wants one", kTag) {
  const auto asked = []() -> std::vector<VisibleGpu> { throw std::logic_error("asked"); };
  const auto none = [] { return std::vector<VisibleGpu>(); };
  const auto one = [] { return std::vector<VisibleGpu>{{"GPU-0", "a card"}}; };
  CHECK(choose_device("cpu", asked) == at::Device(at::kCPU));
  CHECK(choose_device("auto", none) == at::Device(at::kCPU));
  CHECK(choose_device("auto", one) == at::Device(at::kCUDA, 0));
  CHECK(choose_device("cuda", one) == at::Device(at::kCUDA, 0));
  CHECK_THROWS_AS(choose_device("cuda", none), cohort::InputError);
  CHECK(run_device() == at::Device(at::kCPU));
}
