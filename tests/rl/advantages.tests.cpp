#include "rl/advantages.h"

#include <cmath>

#include "core/base/error.h"
#include "core/io/safetensors.h"
#include "tests/catch.h"
#include "tests/core/gradients.h"
#include "tests/fixtures.h"

using namespace cohort;
using namespace cohort::tests;

namespace {

constexpr auto kScales = {"group", "batch", "none"};

at::Tensor alone(const at::Tensor& rewards, int64_t group_size, const std::string& scale) {
  const auto one_rank = distributed::local_communicator("dp");
  return rl::advantages(rewards, group_size, rl::advantage_scale(scale), *one_rank);
}

at::Tensor row(std::vector<double> values) { return at::tensor(values, at::kDouble); }

}  // namespace

TEST_CASE("Advantages equal the reference at each scale", "[rl-advantages][parity]") {
  for (const auto& path : cases("grpo")) {
    INFO(path.string());
    auto f = core::read_safetensors(path.string());
    for (const std::string scale : kScales) {
      INFO(scale);
      const auto found = alone(f.at("rewards"), f.at("group").item<int64_t>(), scale);
      CHECK(error_of(found, f.at("advantages_" + scale)) < 1e-12);
    }
  }
}

TEST_CASE("Advantages have no mean within a group and the deviation asked for", "[rl-advantages]") {
  const auto rewards = at::rand({24}, at::kDouble) * 3;
  const auto groups = rewards.view({4, 6}), centred = groups - groups.mean(1, true);
  CHECK(error_of(alone(rewards, 6, "none"), centred.flatten()) < 1e-14);
  CHECK(error_of(alone(rewards, 6, "batch"), centred.flatten() / (rewards.std() + 1e-4)) < 1e-14);
  CHECK(error_of(alone(rewards, 6, "group"),
                 (centred / (groups.std(1, true, true) + 1e-4)).flatten()) < 1e-14);
}

TEST_CASE("A group of equal rewards has advantages of exactly zero", "[rl-advantages]") {
  // Ten times 0.1 add up to less than 1.
  std::vector<double> rewards(20, 0.1);
  rewards[10] = 0.3;
  for (const std::string scale : kScales) {
    const auto a = alone(row(rewards), 10, scale);
    CHECK(a.narrow(0, 0, 10).abs().max().item<double>() == 0);
    CHECK(a[10].item<double>() > 0);
    CHECK(a[11].item<double>() < 0);
    const auto all_equal = alone(row(rewards).narrow(0, 0, 10), 5, scale);
    CHECK(all_equal.abs().max().item<double>() == 0);
  }
}

TEST_CASE("No group has no advantages", "[rl-advantages]") {
  for (const std::string scale : kScales)
    CHECK(alone(at::empty({0}, at::kDouble), 4, scale).numel() == 0);
}

TEST_CASE("Rewards that are not finite and groups that do not fit are refused", "[rl-advantages]") {
  CHECK_THROWS_WITH(rl::advantage_scale("std"),
                    "advantage scale 'std': should be group, batch or none");
  CHECK_THROWS_AS(rl::advantage_scale("std"), InputError);
  for (const std::string scale : kScales) {
    CHECK_THROWS_AS(alone(row({0, 1, std::nan(""), 1}), 2, scale), Error);
    CHECK_THROWS_AS(alone(row({0, 1, 1 / 0.0, 1}), 2, scale), Error);
    CHECK_THROWS_AS(alone(row({0, 1, 1}), 2, scale), Error);
    CHECK_THROWS_AS(alone(row({0, 1}), 1, scale), Error);
    CHECK_THROWS_AS(alone(row({0, 1}), 0, scale), Error);
    CHECK_THROWS_AS(alone(row({0, 1}).to(at::kFloat), 2, scale), Error);
    CHECK_THROWS_AS(alone(row({0, 1}).unsqueeze(0), 2, scale), Error);
  }
}
