#include "rl/tasks/few_shot.h"

#include "core/base/error.h"
#include "tests/catch.h"
#include "tests/scratch_folder.h"

using namespace cohort;
using Catch::Contains;

namespace {

const char* const kExamples =
    "{\"question\": \"1 apple and 1?\", \"answer\": \"One and one.\\n#### 2\"}\n"
    "{\"question\": \"2 pears and 2?\", \"answer\": \"Two and two.\\n#### 4\"}\n"
    "{\"question\": \"3 plums and 3?\", \"answer\": \"Three and three.\\n#### 6\"}\n";

struct Files {
  tests::ScratchFolder folder;
  Files() {
    folder.write("train.jsonl", kExamples);
    folder.write("test.jsonl",
                 "{\"question\": \"4 figs and 4?\", \"answer\": \"#### 8\"}\n"
                 "{\"question\": \"2 pears and 2?\", \"answer\": \"#### 4\"}\n");
  }
  std::unique_ptr<rl::Task> task(nlohmann::json more, const char* prompt = "Q: {question}\nA: ") {
    nlohmann::json options{{"test", folder / "test.jsonl"},
                           {"few_shot_file", folder / "train.jsonl"}};
    options.update(more);
    return rl::make_task({"jsonl", 1, prompt, options});
  }
};

}  // namespace

TEST_CASE("worked examples stand before a question in the file's order", "[rl-few-shot]") {
  Files files;
  const auto task = files.task({{"few_shot", 2}});
  CHECK(task->name() == "jsonl");
  CHECK(task->size(rl::Split::kTest) == 2);
  CHECK(task->problem(rl::Split::kTest, 0).prompt ==
        "Q: 1 apple and 1?\nA: One and one.\n#### 2\n\n"
        "Q: 2 pears and 2?\nA: Two and two.\n#### 4\n\n"
        "Q: 4 figs and 4?\nA: ");
  // The second question is among the examples: the next one takes its place.
  CHECK(task->problem(rl::Split::kTest, 1).prompt ==
        "Q: 1 apple and 1?\nA: One and one.\n#### 2\n\n"
        "Q: 3 plums and 3?\nA: Three and three.\n#### 6\n\n"
        "Q: 2 pears and 2?\nA: ");
  CHECK(task->problem(rl::Split::kTest, 1).data["answer"] == "4");
}

TEST_CASE("target and separator of worked examples can be chosen", "[rl-few-shot]") {
  Files files;
  const auto task = files.task({{"few_shot", 1},
                                {"few_shot_target", "<answer>{answer}</answer>"},
                                {"few_shot_separator", "\n"}});
  CHECK(task->problem(rl::Split::kTest, 0).prompt ==
        "Q: 1 apple and 1?\nA: <answer>2</answer>\nQ: 4 figs and 4?\nA: ");
}

TEST_CASE("drawn examples hang on seed and question alone", "[rl-few-shot]") {
  Files files;
  const nlohmann::json options{{"few_shot", 2}, {"few_shot_choice", "random"}};
  const auto one = files.task(options), two = files.task(options);
  CHECK(one->problem(rl::Split::kTest, 1).prompt == two->problem(rl::Split::kTest, 1).prompt);
  std::set<std::string> prompts;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    nlohmann::json all = options;
    all["test"] = files.folder / "test.jsonl";
    all["few_shot_file"] = files.folder / "train.jsonl";
    prompts.insert(rl::make_task({"jsonl", seed, "", all})->problem(rl::Split::kTest, 0).prompt);
  }
  CHECK(prompts.size() >= 3);
}

TEST_CASE("generated tasks take worked examples from their training problems", "[rl-few-shot]") {
  const auto task = rl::make_task({"arithmetic", 1, "{question}=", {{"few_shot", 3}}});
  const auto plain = rl::make_task({"arithmetic", 1, "{question}=", nlohmann::json::object()});
  const auto problem = task->problem(rl::Split::kTest, 5);
  const auto bare = plain->problem(rl::Split::kTest, 5);
  CHECK(problem.id == bare.id);
  CHECK(problem.prompt.ends_with("\n\n" + bare.prompt));
  CHECK(std::count(problem.prompt.begin(), problem.prompt.end(), '=') == 4);
  const auto example = plain->problem(rl::Split::kTrain, 0);
  CHECK(problem.prompt.starts_with(example.prompt + example.data["answer"].get<std::string>()));
}

TEST_CASE("few-shot options that cannot be are refused", "[rl-few-shot]") {
  Files files;
  CHECK_THROWS_WITH(files.task({{"few_shot", 4}}),
                    Contains("asks for 4 examples") && Contains("has 3"));
  CHECK_THROWS_WITH(files.task({{"few_shot", 3}})->problem(rl::Split::kTest, 1),
                    Contains("there are 2 besides the problem itself"));
  CHECK_THROWS_WITH(files.task({{"few_shot", 0}}), Contains("want few_shot of at least 1"));
  CHECK_THROWS_WITH(files.task({{"few_shot", 1}, {"few_shot_choice", "best"}}),
                    Contains("first or random"));
  CHECK_THROWS_WITH(files.task({{"few_shot", 1}, {"few_shots", 1}}),
                    Contains("no option few_shots"));
  CHECK_THROWS_WITH(files.task({{"few_shot", 1}, {"few_shot_file", "nowhere.jsonl"}}),
                    Contains("nowhere.jsonl"));
  CHECK_THROWS_WITH(files.task({{"few_shot", 1}, {"few_shot_target", "{solutions}"}}),
                    Contains("no field solutions"));
  CHECK_THROWS_WITH(
      rl::make_task({"arithmetic", 1, "", {{"few_shot", 1}, {"few_shot_file", "x.jsonl"}}}),
      Contains("few_shot_file is for task jsonl"));
}
