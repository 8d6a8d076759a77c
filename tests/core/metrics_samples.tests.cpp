#include <filesystem>
#include <set>

#include "core/metrics/metrics.h"
#include "core/metrics/report_data.h"
#include "core/metrics/report_samples.h"
#include "tests/catch.h"
#include "tests/scratch_folder.h"

using namespace cohort;
using nlohmann::ordered_json;
using tests::ScratchFolder;

namespace {

std::string line(int64_t step, const std::string& id, double right, const std::string& split) {
  const ordered_json sample = {{"step", step},
                               {"prompt", "What is " + id + "?"},
                               {"completion", "<answer>" + std::to_string(step) + "</answer>"},
                               {"reward", right + 0.1},
                               {"rewards", {{"math_answer", right}, {"format", 1.0}}},
                               {"advantage", split == "eval" ? ordered_json() : ordered_json(0.5)},
                               {"tokens", 7},
                               {"truncated", false},
                               {"problem_id", id},
                               {"answer", "42"},
                               {"split", split}};
  return sample.dump() + "\n";
}

std::set<std::string> problems_at(const ordered_json& samples, int64_t step) {
  std::set<std::string> ids;
  for (const ordered_json& sample : samples["shown"])
    if (sample["step"] == step)
      ids.insert(samples["problems"][sample["problem"].get<size_t>()]["id"].get<std::string>());
  return ids;
}

}  // namespace

TEST_CASE("Samples reach the report with their problem, rewards and whether they are right",
          "[core-metrics]") {
  ScratchFolder dir;
  dir.write("s.jsonl",
            line(0, "a", 0, "eval") + line(10, "a", 1, "eval") + line(10, "b", 0.9, "train"));
  const ordered_json samples = core::report_samples(dir / "s.jsonl");
  CHECK(samples["lines"] == 3);
  CHECK(samples["steps"] == 2);
  CHECK(samples["unreadable"] == 0);
  CHECK(samples["right_by"] == "math_answer");
  CHECK(samples["glance"] == ordered_json({0, 10}));
  CHECK(samples["problems"] ==
        ordered_json::parse(R"([{"id": "a", "prompt": "What is a?", "answer": "42"},
                                {"id": "b", "prompt": "What is b?", "answer": "42"}])"));
  REQUIRE(samples["shown"].size() == 3);
  CHECK(samples["shown"][1] == ordered_json::parse(R"({
    "step": 10, "problem": 0, "completion": "<answer>10</answer>", "reward": 1.1, "right": true,
    "rewards": {"math_answer": 1.0, "format": 1.0}, "advantage": null, "tokens": 7.0,
    "truncated": false, "held_out": true})"));
  CHECK(samples["shown"][2]["problem"] == 1);
  CHECK(samples["shown"][2]["right"] == false);
  CHECK(samples["shown"][2]["held_out"] == false);
}

TEST_CASE("Of many samples few are shown, from steps evenly spread, problems met again first",
          "[core-metrics]") {
  ScratchFolder dir;
  std::string lines;
  for (int64_t step = 0; step <= 1000; step += 5) {
    for (int i = 0; i < 20; ++i)
      lines += line(step, "once" + std::to_string(100 * step + i), 0, "train");
    if (step % 20 == 0)
      for (const char* id : {"x", "y"}) lines += line(step, id, 1, "eval");
  }
  dir.write("s.jsonl", lines);
  const ordered_json samples = core::report_samples(dir / "s.jsonl");
  CHECK(samples["lines"] == 201 * 20 + 51 * 2);
  CHECK(samples["shown"].size() <= 200);
  CHECK(samples["shown"].size() > 120);
  std::set<int64_t> steps;
  for (const ordered_json& sample : samples["shown"]) steps.insert(sample["step"].get<int64_t>());
  CHECK(steps.size() == 40);
  CHECK(*steps.begin() == 0);
  CHECK(*steps.rbegin() == 1000);
  for (auto it = steps.begin(); std::next(it) != steps.end(); ++it)
    CHECK(*std::next(it) - *it <= 30);
  // Before, during and after can be compared on the same problems, the middle one near the middle.
  REQUIRE(samples["glance"].size() == 3);
  CHECK(std::abs(samples["glance"][1].get<int64_t>() - 500) <= 60);
  for (const ordered_json& step : samples["glance"]) {
    const auto problems = problems_at(samples, step.get<int64_t>());
    CHECK(problems.contains("x"));
    CHECK(problems.contains("y"));
    CHECK(problems.size() > 4);
  }
}

TEST_CASE("Of one step, one completion of each problem comes before a second of any",
          "[core-metrics]") {
  ScratchFolder dir;
  std::string lines;
  for (int problem = 0; problem < 100; ++problem)
    for (int sample = 0; sample < 8; ++sample)
      lines += line(1, std::to_string(problem), 1, "train");
  dir.write("s.jsonl", lines);
  const ordered_json samples = core::report_samples(dir / "s.jsonl");
  CHECK(samples["shown"].size() <= 200);
  CHECK(samples["problems"].size() >= 60);
  CHECK(samples["glance"] == ordered_json({1}));
}

TEST_CASE("A long completion is cut in the middle, between two characters", "[core-metrics]") {
  ScratchFolder dir;
  std::string text = "start";
  for (int i = 0; i < 700000; ++i) text += "\u20ac";
  dir.write("s.jsonl", ordered_json({{"step", 1}, {"completion", text + "end"}}).dump() + "\n");
  const ordered_json samples = core::report_samples(dir / "s.jsonl");
  const ordered_json& cut = samples["shown"][0]["completion"];
  REQUIRE(cut.size() == 3);
  const auto head = cut[0].get<std::string>(), tail = cut[1].get<std::string>();
  CHECK(head.size() + tail.size() <= 4096);
  CHECK(head.size() + tail.size() > 4000);
  CHECK(head.size() + tail.size() + cut[2].get<size_t>() == text.size() + 3);
  CHECK(head.starts_with("start"));
  CHECK(tail.ends_with("end"));
  CHECK_NOTHROW(cut.dump());  // throws on half a character
}

TEST_CASE("Oddities of samples.jsonl do not stop a report", "[core-metrics]") {
  ScratchFolder dir;
  dir.write("run/config.yaml", "run: {}\n");
  CHECK(core::report_data(dir / "run")["samples"].is_null());
  dir.write("run/samples.jsonl", "");
  CHECK(core::report_data(dir / "run")["samples"].is_null());
  dir.write("run/samples.jsonl", "{\"step\":1,\"completion\":\"torn");
  CHECK(core::report_data(dir / "run")["samples"].is_null());
  const std::string deep(100000, '[');
  dir.write(
      "run/samples.jsonl",
      "garbage\n[1]\n\n{\"step\":1}\n{\"step\":-1,\"completion\":\"a\"}\n"
      "{\"step\":\"1\",\"completion\":\"a\"}\n{\"step\":1,\"completion\":7}\n" +
          deep + "\n{\"step\":1,\"completion\":\"\xff\"}\n" +
          "{\"step\":2,\"completion\":\"a\",\"reward\":null,\"rewards\":[1],\"tokens\":\"x\","
          "\"truncated\":3,\"problem_id\":{},\"prompt\":null,\"answer\":[1,[2]],\"split\":4}\n"
          "{\"step\":2,\"completion\":\"\\u0000</script>\",\"reward\":1e308,\"rewards\":"
          "{\"x\":null,\"y\":{}},\"answer\":[1,\"b\"]}\n"
          "{\"step\":2,\"completion\":\"b\",\"reward\":1}\n{\"step\":3,\"completion\":\"to");
  const ordered_json samples = core::report_data(dir / "run")["samples"];
  CHECK(samples["lines"] == 3);
  CHECK(samples["unreadable"] == 8);
  REQUIRE(samples["shown"].size() == 3);
  CHECK(samples["problems"].size() == 1);
  CHECK(samples["shown"][0]["reward"].is_null());
  CHECK(samples["shown"][0]["right"] == false);
  CHECK(samples["shown"][2]["right"] == true);  // no rewards: the reward decides
  CHECK_NOTHROW(core::write_report(dir / "run"));
  std::filesystem::remove(dir / "run/samples.jsonl");
  std::filesystem::create_directory(dir / "run/samples.jsonl");
  CHECK(core::report_data(dir / "run")["samples"].is_null());
}

TEST_CASE("Markup in a completion cannot break the report", "[core-metrics]") {
  ScratchFolder dir;
  dir.write("run/config.yaml", "run: {}\n");
  core::write_report(dir / "run");
  const std::string plain = dir.read("run/report.html");
  dir.write("run/samples.jsonl",
            ordered_json({{"step", 1},
                          {"prompt", "<!-- @RUN@ @SCRIPT@"},
                          {"completion", "</script><script>alert(1)</script><!--"},
                          {"rewards", {{"</script><b>", 1}}}})
                    .dump() +
                "\n");
  core::write_report(dir / "run");
  const std::string page = dir.read("run/report.html");
  CHECK(std::count(page.begin(), page.end(), '<') == std::count(plain.begin(), plain.end(), '<'));
}

TEST_CASE("An RL run's figures say where it began and where it got to", "[core-metrics]") {
  ScratchFolder dir;
  {
    core::RunLog log(dir / "run", 80, -1);
    log.step(0, {{"eval_pass_at_1", 0.1}, {"eval_problems", 512}});
    for (int64_t step = 1; step <= 80; ++step) {
      ordered_json scalars = {{"reward_mean",
                               step <= 10  ? 0.25
                               : step > 70 ? 0.75
                                           : 9.0},
                              {"pass_rate", 0.5},
                              {"logp_drift_max", step == 3 ? 2e-5 : 1e-6},
                              {"routing_mismatch", 0},
                              {"generate_tokens_per_second", 100 + step}};
      if (step == 40) scalars["eval_pass_at_1"] = 0.9, scalars["eval_problems"] = 512;
      if (step == 80) scalars["eval_pass_at_1"] = 0.8, scalars["eval_problems"] = 512;
      log.step(step, scalars);
    }
  }
  const ordered_json run = core::report_data(dir / "run"), figures = run["figures"];
  CHECK(figures["eval_pass_at_1_first"] == 0.1);
  CHECK(figures["eval_step_first"] == 0);
  CHECK(figures["eval_pass_at_1"] == 0.8);  // the last, not the best
  CHECK(figures["eval_step"] == 80);
  CHECK(figures["eval_problems"] == 512);
  CHECK(figures["reward_mean_first"] == 0.25);
  CHECK(figures["reward_mean"] == 0.75);
  CHECK(figures["rl_mean_steps"] == 10);
  CHECK(figures["logp_drift_max"] == 2e-5);
  CHECK(figures["routing_mismatch"] == 0);
  CHECK(figures["generate_tokens_per_second"] == 141.0);
  CHECK(run["curves"]["eval_pass_at_1"]["x"] == ordered_json({0, 40, 80}));
}

TEST_CASE("A run of a few RL steps keeps its start and its end apart", "[core-metrics]") {
  ScratchFolder dir;
  dir.write("run/metrics.jsonl",
            "{\"step\":1,\"reward_mean\":0.5}\n{\"step\":2,\"reward_mean\":1}\n");
  const ordered_json figures = core::report_data(dir / "run")["figures"];
  CHECK(figures["reward_mean_first"] == 0.5);
  CHECK(figures["reward_mean"] == 1.0);
  CHECK(figures["rl_mean_steps"] == 1);
}
