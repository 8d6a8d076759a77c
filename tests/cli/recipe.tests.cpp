#include "cli/recipe/recipe.h"

#include <filesystem>
#include <fstream>

#include "cli/recipe/identity.h"
#include "cli/recipe/runner.h"
#include "cli/recipe/words.h"
#include "core/base/error.h"
#include "tests/catch.h"
#include "tests/scratch_folder.h"

namespace {

using namespace cohort::cli;
using Words = std::vector<std::string>;

Recipe read(const std::string& text, const Words& overrides = {}) {
  const cohort::tests::ScratchFolder folder;
  const std::string path = folder / "chain.yaml";
  cohort::tests::write_bytes(path, text);
  return load_recipe(path, overrides);
}

std::string fault(const std::string& text, const Words& overrides = {}) {
  try {
    read(text, overrides);
  } catch (const cohort::InputError& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("Words are cut as a shell cuts them", "[cli-recipe]") {
  CHECK((shell_words(" a  b\tc\n") == Words{"a", "b", "c"}));
  CHECK((shell_words(R"(--x='a b' "c 'd" e\ f '' "\"")") ==
         Words{"--x=a b", "c 'd", "e f", "", "\""}));
  CHECK((shell_words("a${b}") == Words{"a${b}"}));
  CHECK_FALSE(shell_words("a 'b").has_value());
  CHECK_FALSE(shell_words("a \"b").has_value());
  const Words awkward{"plain", "two words", "", "it's", "a=[{path: x, weight: 1}]", "$HOME", "\\"};
  CHECK((shell_words(shell_line(awkward)) == awkward));
}

TEST_CASE("A recipe's stages name their outputs and each other's", "[cli-recipe]") {
  const Recipe recipe = read(R"(
title: Chain
dir: runs/chain
settings: {steps: 500, workers: 2}
stages:
  - {name: base, ranks: "${workers}", run: "cohort pretrain --resume run.dir=${out} train.steps=${steps}"}
  - name: zero
    out: models/zero
    run: cohort grpo --model ${base} 'run.dir=${out}' "ranks ${ranks}"
evaluate: {options: --problems 7, ranks: 2}
table: [{model: zero, label: Zero}, {model: base}]
)",
                             {"steps=20", "dir=/x/y z"});
  REQUIRE(recipe.stages.size() == 4);  // an evaluation follows each of the two
  const Stage& base = recipe.stages[0];
  CHECK(base.ranks == 2);
  CHECK(base.resumes);
  CHECK((base.command ==
         Words{"cohort", "pretrain", "--resume", "run.dir=/x/y z/base", "train.steps=20"}));
  const Stage& zero = recipe.stages[2];
  CHECK(
      (zero.command ==
       Words{"cohort", "grpo", "--model", "/x/y z/base", "run.dir=/x/y z/models/zero", "ranks 1"}));
  CHECK_FALSE(zero.resumes);
  CHECK((zero.after == std::vector<size_t>{0}));
  const Stage& evaluation = recipe.stages[3];
  CHECK(evaluation.name == "eval-zero");
  CHECK(evaluation.ranks == 2);
  CHECK((evaluation.after == std::vector<size_t>{2}));
  CHECK((evaluation.command == Words{"cohort",
                                     "eval",
                                     "--model",
                                     "/x/y z/models/zero",
                                     "--out",
                                     "/x/y z/eval/zero.json",
                                     "--save",
                                     "/x/y z/eval/zero.jsonl",
                                     "--problems",
                                     "7"}));
  REQUIRE(recipe.table.size() == 2);
  CHECK(recipe.table[0].label == "Zero");
  CHECK(recipe.table[0].model == 2);
  CHECK(recipe.table[0].evaluation == 3);
  CHECK(recipe.table[1].label == "base");
}

TEST_CASE("What is no recipe is refused with its line", "[cli-recipe]") {
  const std::string stages = "\nstages: [{name: a, run: cohort x}]\n";
  const std::vector<std::array<std::string, 2>> cases{
      {"", "a recipe"},
      {"dir: x", "stages"},
      {"dir: x\nstages: []", "stages"},
      {"stages: [{name: a, run: b}]", "dir"},
      {"dir: x\ncolour: red" + stages, "2: 'colour'"},
      {"dir: x\ndir: y" + stages, "twice"},
      {"dir: x\nstages: [{name: a}]", "run"},
      {"dir: x\nstages: [{name: a/b, run: c}]", "a/b"},
      {"dir: x\nstages: [{name: out, run: c}]", "out"},
      {"dir: x\nstages: [{name: a, run: c}, {name: a, run: d}]", "has a meaning"},
      {"dir: x\nsettings: {a: 1}\nstages: [{name: a, run: c}]", "has a meaning"},
      {"dir: x\nstages: [{name: a, run: 'c ${b}'}, {name: b, run: d}]", "not known at this stage"},
      {"dir: x\nstages: [{name: a, run: 'c ${b'}]", "not known at this stage"},
      {"dir: x\nstages: [{name: a, run: \"c 'd\"}]", "quote is not closed"},
      {"dir: x\nstages: [{name: a, run: c, ranks: 0}]", "ranks"},
      {"dir: x\nstages: [{name: a, run: c, ranks: two}]", "ranks"},
      {"dir: x\nstages: [{name: a, run: c, out: ../b}]", "not below dir"},
      {"dir: x\nstages: [{name: a, run: c, out: /b}]", "not below dir"},
      {"dir: x\nstages: [{name: a, run: c, out: b}, {name: b, run: c}]", "stage a's"},
      {"dir: x\nstages: [{name: a, run: c, inputs: b}]", "want a list"},
      {"dir: x\nstages: [{name: a, run: c, resumes: maybe}]", "true or false"},
      {"dir: x" + stages + "table: [{model: a}]", "evaluate"},
      {"dir: x" + stages + "evaluate: {options: b}\ntable: [{model: z}]", "'z' is no stage"},
      {"dir: x" + stages + "evaluate: {options: b}\ntable: [{model: a}, {model: a}]", "already"},
      {"dir: [x" + stages, "YAML"},
      {"- a", "recipe"},
  };
  for (const auto& [text, word] : cases) {
    const std::string said = fault(text);
    INFO(text << "\n-> " << said);
    CHECK(said.find(word) != std::string::npos);
    CHECK(said.find("chain.yaml") != std::string::npos);
    CHECK(said.find('\n') == std::string::npos);
  }
  CHECK(fault("dir: x" + stages, {"steps=3"}).find("no setting 'steps'") != std::string::npos);
  CHECK(fault("dir: x" + stages, {"steps"}).find("NAME=VALUE") != std::string::npos);
  CHECK_THROWS_AS(load_recipe("/nowhere/chain.yaml", {}), cohort::InputError);
  CHECK_THROWS_AS(read("dir: x" + stages).stage("b"), cohort::InputError);
}

TEST_CASE("A folder's identity is that of what it holds", "[cli-recipe]") {
  const cohort::tests::ScratchFolder folder;
  const std::string run = folder / "run";
  CHECK(identify(run).digest.empty());
  std::filesystem::create_directories(run + "/checkpoints/step-00000005");
  cohort::tests::write_bytes(run + "/checkpoints/step-00000005/manifest.json", "{}");
  cohort::tests::write_bytes(run + "/checkpoints/step-00000005/model.safetensors", "abc");
  const Identity first = identify(run);
  CHECK_FALSE(first.digest.empty());
  cohort::tests::write_bytes(run + "/metrics.jsonl", "{}\n");  // a log may grow
  CHECK(identify(run).digest == first.digest);
  CHECK(identify(run, first).digest == first.digest);
  cohort::tests::write_bytes(run + "/checkpoints/step-00000005/manifest.json", "{1}");
  CHECK(identify(run, first).digest != first.digest);
  std::filesystem::create_directories(run + "/checkpoints/step-00000010");
  cohort::tests::write_bytes(run + "/checkpoints/step-00000010/manifest.json", "{}");
  CHECK(identify(run).digest != first.digest);

  const std::string set = folder / "set";
  std::filesystem::create_directories(set);
  cohort::tests::write_bytes(set + "/a", "1");
  cohort::tests::write_bytes(set + "/b", "23");
  const Identity before = identify(set);
  cohort::tests::write_bytes(set + "/a", "12");
  cohort::tests::write_bytes(set + "/b", "3");
  CHECK(identify(set).digest != before.digest);
}

TEST_CASE("A stage's key changes with its command, its files and the outputs it uses",
          "[cli-recipe]") {
  const cohort::tests::ScratchFolder folder;
  const std::string config = folder / "config.yaml", extra = folder / "extra";
  cohort::tests::write_bytes(config, "a");
  cohort::tests::write_bytes(extra, "b");
  const auto recipe_of = [&](const std::string& more) {
    return read(
        "dir: /chain\nstages:\n  - {name: a, run: x}\n  - {name: b, run: \"cohort y ${a} "
        "--config=" +
        config + more + "\", inputs: [" + extra + "]}\n");
  };
  std::map<std::string, Identity> outputs{{"a", {"1", ""}}};
  const auto key = [&](const std::string& more = "") {
    const Recipe recipe = recipe_of(more);
    return key_of(recipe, recipe.stages[1], outputs);
  };
  const std::string first = key();
  CHECK(key() == first);
  CHECK(key(" z") != first);
  cohort::tests::write_bytes(config, "b");
  CHECK(key() != first);
  cohort::tests::write_bytes(config, "a");
  CHECK(key() == first);
  cohort::tests::write_bytes(extra, "c");
  CHECK(key() != first);
  cohort::tests::write_bytes(extra, "b");
  outputs["a"] = Identity{"2", ""};
  CHECK(key() != first);
  std::filesystem::remove(extra);
  CHECK_THROWS_AS(key(), cohort::InputError);
}
