// Advantages of groups that are spread over ranks against those of one rank that holds them all.
#include "rl/advantages.h"

#include "core/base/rng.h"
#include "distributed/mesh.h"
#include "tests/catch.h"

using namespace cohort;

namespace {

constexpr int64_t kGroupSize = 4;

/// Of 8 groups: 0, 0.5 or 1, and one group of equal rewards.
at::Tensor all_rewards() {
  auto rewards = at::empty({8 * kGroupSize}, at::kDouble);
  double* r = rewards.data_ptr<double>();
  for (int64_t i = 0; i < rewards.numel(); ++i)
    r[i] = i / kGroupSize == 2 ? 0.7 : 0.37 * (core::random_bits(5, 0, i) % 3);
  return rewards;
}

/// The groups of a rank: every size()-th one, or all of them on the last rank.
std::vector<int64_t> groups_of(const distributed::Communicator& dp, bool on_last) {
  std::vector<int64_t> groups;
  for (int64_t g = 0; g < 8; ++g)
    if (on_last ? dp.rank() == dp.size() - 1 : g % dp.size() == dp.rank()) groups.push_back(g);
  return groups;
}

}  // namespace

TEST_CASE("Advantages have the same bits on one rank and on several",
          "[rl-advantages][ranks1][ranks2][ranks4]") {
  const auto mesh = distributed::make_mesh({});
  const auto one_rank = distributed::local_communicator("dp");
  for (const auto scale :
       {rl::AdvantageScale::kGroup, rl::AdvantageScale::kBatch, rl::AdvantageScale::kNone}) {
    const auto expected =
        rl::advantages(all_rewards(), kGroupSize, scale, *one_rank).view({8, kGroupSize});
    CHECK(expected.abs().max().item<double>() > 0);
    for (const bool on_last : {false, true}) {
      const auto groups = at::tensor(groups_of(*mesh.dp, on_last), at::kLong);
      const auto mine = all_rewards().view({8, kGroupSize}).index_select(0, groups).flatten();
      const auto found = rl::advantages(mine, kGroupSize, scale, *mesh.dp);
      CAPTURE(static_cast<int>(scale), on_last, mesh.dp->rank());
      CHECK(at::equal(found, expected.index_select(0, groups).flatten()));
    }
    const auto none = rl::advantages(at::empty({0}, at::kDouble), kGroupSize, scale, *mesh.dp);
    CHECK(none.numel() == 0);
  }
}
