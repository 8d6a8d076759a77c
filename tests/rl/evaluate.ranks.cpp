// Every rank returns what one process finds alone.
#include "rl/evaluate.h"
#include "tests/catch.h"
#include "tests/rl/solvable.h"

using namespace cohort;

TEST_CASE("an evaluation knows neither the ranks nor how problems are dealt to them",
          "[rl-evaluate][ranks1][ranks2][ranks4]") {
  const core::Tokenizer tokenizer = tests::byte_tokenizer();
  std::vector<rl::Problem> problems;  // no multiple of the ranks
  for (int i = 0; i < 7; ++i) problems.push_back(tests::solvable(i, i < 3 ? "few" : "many", i));
  rl::EvaluationOptions options;
  options.samples = 5;
  const auto evaluate = [&](distributed::Communicator& dp, std::span<const rl::Problem> of) {
    tests::MadeUpModel model{tokenizer, 1};
    const std::vector<rl::RewardConfig> rewards{{"math_answer"}};
    rl::RewardSum sum(rewards);
    return rl::evaluate(
        options, of, tokenizer, sum, dp, [&](const auto& requests) { return model(requests); });
  };
  const distributed::Mesh mesh = distributed::make_mesh({});
  const auto alone = evaluate(*distributed::local_communicator("dp"), problems);
  const auto together = evaluate(*mesh.dp, problems);
  CHECK(rl::evaluation_json(together) == rl::evaluation_json(alone));
  CHECK(alone.completions.size() == 35);
  for (const auto& one : together.completions)
    CHECK(one.problem_idx % mesh.shape.dp == mesh.shape.dp_rank);
  // Fewer problems than ranks: the others have nothing to do and still take part.
  const auto one = evaluate(*mesh.dp, std::span(problems).first(1));
  CHECK(one.problems == 1);
  CHECK(one.pass_at_1 == 0.0);
}
