// What a rollout draws, and in which order.
#include "rl/rollout.h"

#include <set>

#include "rl/grpo_samples.h"
#include "tests/catch.h"
#include "tests/rl/rollout_fakes.h"

using namespace cohort;
using tests::prompt_numbers;

namespace {

struct Fixture {
  core::Tokenizer tokenizer = tests::letters_tokenizer();
  tests::NumberTask task;
  rl::RewardSum rewards = tests::exact_reward();
  std::shared_ptr<distributed::Communicator> dp = distributed::local_communicator("dp");
  tests::FakeGenerator generator{tokenizer};

  rl::Rollout draw(const rl::RolloutOptions& options) {
    return rl::roll_out(options, task, tokenizer, rewards, *dp, std::ref(generator));
  }
};

rl::RolloutOptions eight_prompts() {
  rl::RolloutOptions options;
  options.prompts = 8;
  options.group_size = 4;
  options.bos_token_id = 0;
  return options;
}

}  // namespace

TEST_CASE("a step takes the prompts behind those of the step before", "[rl-rollout]") {
  Fixture fixture;
  auto options = eight_prompts();
  options.first_prompt = 40;
  const auto rollout = fixture.draw(options);
  CHECK(prompt_numbers(rollout) == std::vector<int64_t>{40, 41, 42, 43, 44, 45, 46, 47});
  CHECK(rollout.next_prompt == 48);
  CHECK(fixture.generator.calls == 1);
  const auto& group = rollout.groups[2];
  CHECK(group.prompt.front() == 0);
  CHECK(fixture.tokenizer.decode(std::span(group.prompt).subspan(1)) == "Q42");
  REQUIRE(group.samples.size() == 4);
  CHECK(group.samples[0].text == "yes");  // its end token is no text
  CHECK(group.samples[0].reward == 1);
  CHECK(group.samples[1].reward == 0);
  CHECK(group.samples[1].truncated());
  CHECK(group.samples[0].advantage > 0.8);
  CHECK(group.samples[1].advantage == Approx(-group.samples[0].advantage));
}

TEST_CASE("a prompt may come without a begin token", "[rl-rollout]") {
  const auto tokenizer = tests::letters_tokenizer();
  CHECK(rl::prompt_ids(tokenizer, "what", -1) == tokenizer.encode("what"));
  CHECK(rl::prompt_ids(tokenizer, "what", 0).size() == tokenizer.encode("what").size() + 1);
}

TEST_CASE("every sample of a run has a seed of its own, known in advance", "[rl-rollout]") {
  Fixture fixture;
  auto options = eight_prompts();
  fixture.draw(options);
  const auto first = fixture.generator.seeds;
  CHECK(std::set<uint64_t>(first.begin(), first.end()).size() == 32);
  fixture.generator.seeds.clear();
  fixture.draw(options);
  CHECK(fixture.generator.seeds == first);
  for (auto change : {&rl::RolloutOptions::step, &rl::RolloutOptions::first_prompt}) {
    auto other = options;
    other.*change += 100;
    fixture.generator.seeds.clear();
    fixture.draw(other);
    for (uint64_t seed : fixture.generator.seeds)
      CHECK(std::count(first.begin(), first.end(), seed) == 0);
  }
}

TEST_CASE("groups without variance are drawn anew from further prompts", "[rl-rollout]") {
  Fixture fixture;
  auto options = eight_prompts();
  options.refill_rounds = 3;
  const auto rollout = fixture.draw(options);
  // 0, 1, 4, 5 give way to 8 ... 11; of these 8, 9 to 12, 13; these to 14, 15.
  CHECK(prompt_numbers(rollout) == std::vector<int64_t>{14, 15, 2, 3, 10, 11, 6, 7});
  CHECK(rollout.next_prompt == 16);
  CHECK(rollout.sums.groups == 16);
  CHECK(rollout.sums.degenerate == 8);
  for (const auto& group : rollout.groups) CHECK_FALSE(group.degenerate());
}

TEST_CASE("drawing anew ends after refill_rounds, and when nothing is left to replace",
          "[rl-rollout]") {
  Fixture fixture;
  auto options = eight_prompts();
  options.refill_rounds = 1;
  const auto rollout = fixture.draw(options);
  CHECK(prompt_numbers(rollout) == std::vector<int64_t>{8, 9, 2, 3, 10, 11, 6, 7});
  CHECK(rollout.groups[0].samples[0].advantage == 0);
  options.refill_rounds = 1000;
  fixture.generator.calls = 0;
  fixture.draw(options);
  CHECK(fixture.generator.calls == 4);
}

TEST_CASE("sums are over everything drawn", "[rl-rollout]") {
  Fixture fixture;
  auto options = eight_prompts();
  const auto sums = fixture.draw(options).sums;
  CHECK(sums.completions == 32);
  CHECK(sums.reward == 16);  // two groups right, four half right
  CHECK(sums.passed == 16);
  CHECK(sums.components == std::vector<double>{16});
  CHECK(sums.truncated == 16);
  CHECK(sums.tokens == 16 * 4 + 16 * 2);  // "yes" and an end token, "no"
  CHECK(sums.entropy == Approx(0.5 * sums.tokens));
  CHECK(sums.failures == 0);
}

TEST_CASE("sample lines show the first groups", "[rl-rollout]") {
  Fixture fixture;
  auto options = eight_prompts();
  options.first_prompt = 2;
  const auto rollout = fixture.draw(options);
  const auto lines = rl::sample_lines(rollout.groups, fixture.rewards.labels());
  REQUIRE(lines.size() == 8);
  const auto& line = lines[0];
  CHECK(line["prompt"] == "Q2");
  CHECK(line["completion"] == "yes");
  CHECK(line["reward"] == 1.0);
  CHECK(line["rewards"] == nlohmann::ordered_json{{"exact", 1.0}});
  CHECK(line["advantage"] == rollout.groups[0].samples[0].advantage);
  CHECK(line["tokens"] == 4);
  CHECK(line["truncated"] == false);
  CHECK(line["problem_id"] == "id2");
  CHECK(line["answer"] == "yes");
  CHECK(line["split"] == "train");
  CHECK(lines[4]["prompt"] == "Q3");
}
