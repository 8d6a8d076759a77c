#include "rl/evaluate.h"

#include "core/base/error.h"
#include "core/base/rng.h"
#include "tests/catch.h"
#include "tests/rl/solvable.h"

using namespace cohort;
using Catch::Contains;
using tests::solvable;

namespace {

const std::vector<rl::RewardConfig> kRewards{{"exact", 2.0},
                                             {"format", 0.5, {{"tags", {"answer"}}}}};

struct Evaluated {
  core::Tokenizer tokenizer = tests::byte_tokenizer();
  tests::MadeUpModel model{tokenizer, 1};
  rl::RewardSum rewards{kRewards};

  rl::Evaluation operator()(const std::vector<rl::Problem>& problems,
                            const rl::EvaluationOptions& options) {
    return rl::evaluate(options,
                        problems,
                        tokenizer,
                        rewards,
                        *distributed::local_communicator("dp"),
                        [this](const auto& requests) { return model(requests); });
  }
};

rl::EvaluationOptions four_samples() {
  rl::EvaluationOptions options;
  options.samples = 4;
  return options;
}

}  // namespace

TEST_CASE("an evaluation counts what the rewards call right", "[rl-evaluate]") {
  Evaluated run;
  // 0, 1, 3 and 4 of 4 samples right.
  const rl::Evaluation result =
      run({solvable(0, "a", 1), solvable(1, "a", 2), solvable(3, "b", 3), solvable(4, "b", 4)},
          four_samples());
  CHECK(result.problems == 4);
  CHECK(result.samples == 4);
  CHECK(result.pass_at_1 == 0.5);
  CHECK(result.pass_at_1_ci95 == rl::share_interval(std::vector<double>{0, 0.25, 0.75, 1}, 4));
  REQUIRE(result.pass_at_k.size() == 3);
  CHECK(result.pass_at_k[0] == std::pair<int64_t, double>{1, 0.5});
  CHECK(result.pass_at_k[1].first == 2);
  CHECK(result.pass_at_k[1].second == Approx((0 + 0.5 + 1 + 1) / 4));
  CHECK(result.pass_at_k[2] == std::pair<int64_t, double>{4, 0.75});
  CHECK(result.maj_at_k == 0.5);
  CHECK(result.categories.at("a").problems == 2);
  CHECK(result.categories.at("a").pass_at_1 == 0.125);
  CHECK(result.categories.at("b").pass_at_1 == 0.875);
  CHECK(result.truncated_fraction == 0.25);
  // "so" stands before the tag of a right answer: no format reward for it.
  CHECK((result.rewards ==
         std::vector<std::pair<std::string, double>>{{"exact", 0.5}, {"format", 0.5}}));
  CHECK(result.reward_mean == 0.5 * 2.0 + 0.5 * 0.5);
  CHECK(result.reward_failures == 0);
  REQUIRE(result.completions.size() == 16);
  const rl::EvaluatedCompletion& one = result.completions[4];
  CHECK(one.problem_idx == 1);
  CHECK(one.sample_idx == 0);
  CHECK(one.text == "so\n<answer>7</answer>");
  CHECK(one.answer == "7");
  CHECK(one.correct);
  CHECK(one.reward == 2.0);
  double tokens = 0;
  for (const auto& completion : result.completions)
    tokens += static_cast<double>(completion.tokens) / 16;
  CHECK(result.tokens_mean == Approx(tokens));
}

TEST_CASE("any reward may be the one that decides", "[rl-evaluate]") {
  Evaluated run;
  rl::EvaluationOptions options = four_samples();
  options.correct = "format";
  CHECK(run({solvable(1, "a", 1)}, options).pass_at_1 == 0.75);
  options.correct = "math";
  CHECK_THROWS_WITH(run({solvable(1, "a", 1)}, options),
                    Contains("no reward is called \"math\"") && Contains("exact, format"));
  CHECK_THROWS_AS(run({}, four_samples()), InputError);
}

TEST_CASE("a sample's seed is that of its problem, wherever the problem stands", "[rl-evaluate]") {
  Evaluated run;
  rl::EvaluationOptions options = four_samples();
  options.bos_token_id = 0;
  options.seed = 9;
  run({solvable(1, "a", 1), solvable(2, "a", 2)}, options);
  run({solvable(2, "a", 2), solvable(1, "a", 1)}, options);
  const auto& asked = run.model.asked;
  REQUIRE(asked.size() == 4);
  CHECK(asked[0].seeds == asked[3].seeds);
  CHECK(asked[1].seeds == asked[2].seeds);
  CHECK(asked[0].seeds != asked[1].seeds);
  CHECK(asked[0].seeds[2] == core::random_bits(9, core::stream_of("id1"), 2));
  CHECK(asked[0].prompt[0] == 0);
  CHECK(run.tokenizer.decode(asked[0].prompt, true) == "1");
  options.seed = 10;
  run({solvable(1, "a", 1)}, options);
  CHECK(asked[4].seeds != asked[0].seeds);
}

TEST_CASE("samples that are no power of two get pass@k up to all of them", "[rl-evaluate]") {
  Evaluated run;
  rl::EvaluationOptions options;
  options.samples = 6;
  std::vector<int64_t> k;
  for (const auto& [at, value] : run({solvable(1, "a", 1)}, options).pass_at_k) k.push_back(at);
  CHECK((k == std::vector<int64_t>{1, 2, 4, 6}));
  options.samples = 1;
  CHECK(run({solvable(1, "a", 1)}, options).pass_at_k.size() == 1);
}

TEST_CASE("an evaluation as JSON has the names that others rely on", "[rl-evaluate]") {
  Evaluated run;
  const std::vector<rl::Problem> problems{solvable(1, "a", 1), solvable(3, "b", 2)};
  const rl::Evaluation result = run(problems, four_samples());
  const auto json = rl::evaluation_json(result);
  CHECK(json["problems"] == 2);
  CHECK(json["samples"] == 4);
  CHECK(json["pass_at_1"] == 0.5);
  CHECK(json["avg_at_k"] == 0.5);
  CHECK(json["pass_at_1_ci95"].size() == 2);
  CHECK(json["pass_at_1_ci95"][0] < 0.5);
  CHECK(json["pass_at_k"]["4"] == 1.0);
  CHECK(json["maj_at_k"] == 0.5);
  CHECK(json["categories"]["b"]["pass_at_1"] == 0.75);
  CHECK(json["rewards"]["exact"] == 0.5);
  CHECK(json.contains("completion_tokens_mean"));
  const auto line = rl::completion_json(result.completions[0], problems[0], {"exact", "format"});
  CHECK(line["id"] == "id1");
  CHECK(line["prompt"] == "1");
  CHECK(line["rewards"]["exact"] == 1.0);
  CHECK(line["data"]["number"] == 1);
  CHECK(line["correct"] == true);
}
