// A rollout shared out over ranks is that of one rank.
#include "rl/rollout.h"

#include "distributed/mesh.h"
#include "tests/catch.h"
#include "tests/rl/rollout_fakes.h"

using namespace cohort;

TEST_CASE("ranks share the groups of one rank, those drawn anew included",
          "[rl-rollout][ranks1][ranks2][ranks4]") {
  const auto tokenizer = tests::letters_tokenizer();
  const tests::NumberTask task;
  const auto mesh = distributed::make_mesh({});
  auto rewards = tests::exact_reward();
  rl::RolloutOptions options;
  options.prompts = 8;
  options.group_size = 4;
  options.bos_token_id = 0;
  options.scale = rl::AdvantageScale::kBatch;
  for (const int64_t rounds : {0, 1, 3}) {
    options.refill_rounds = rounds;
    tests::FakeGenerator alone(tokenizer), shared(tokenizer);
    const auto all = rl::roll_out(
        options, task, tokenizer, rewards, *distributed::local_communicator("dp"), std::ref(alone));
    const auto mine = rl::roll_out(options, task, tokenizer, rewards, *mesh.dp, std::ref(shared));
    CHECK(shared.calls == alone.calls);  // a lockstep over ep needs the same number everywhere
    CHECK(mine.next_prompt == all.next_prompt);
    CHECK(mine.sums.completions == all.sums.completions);
    CHECK(mine.sums.reward == all.sums.reward);
    CHECK(mine.sums.degenerate == all.sums.degenerate);
    CHECK(mine.sums.tokens == all.sums.tokens);
    REQUIRE(mine.groups.size() * mesh.shape.dp == all.groups.size());
    for (size_t g = 0; g < mine.groups.size(); ++g) {
      const auto& here = mine.groups[g];
      const auto& there = all.groups[g + mine.groups.size() * mesh.shape.dp_rank];
      CHECK(here.prompt_idx == there.prompt_idx);
      for (size_t i = 0; i < here.samples.size(); ++i) {
        CHECK(here.samples[i].generated.log_prob == there.samples[i].generated.log_prob);
        CHECK(here.samples[i].reward == there.samples[i].reward);
        CHECK(here.samples[i].advantage == Approx(there.samples[i].advantage));
      }
    }
  }
}
