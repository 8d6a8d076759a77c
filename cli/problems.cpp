#include "cli/problems.h"

#include <cstdio>
#include <fstream>
#include <memory>

#include "core/base/error.h"
#include "core/config/parse.h"
#include "rl/components.h"
#include "rl/tasks/task.h"

namespace cohort::cli {
namespace {

struct Arguments {
  std::string config, split = "train", out;
  std::vector<std::string> overrides;
  int64_t count = 1000;
};

int write_problems(const Arguments& arguments) {
  const core::Config config = core::parse_config(arguments.config, arguments.overrides);
  const auto task = rl::make_task(rl::task_config(config.rl.task, config.run.seed));
  const auto split = arguments.split == "test" ? rl::Split::kTest : rl::Split::kTrain;
  std::ofstream out(arguments.out, std::ios::binary);
  COHORT_CHECK_INPUT(out.good(), "{}: cannot be written", arguments.out);
  for (const auto& problem : rl::distinct_problems(*task, split, arguments.count)) {
    nlohmann::ordered_json line{
        {"id", problem.id}, {"category", problem.category}, {"prompt", problem.prompt}};
    line.update(problem.data);
    out << line.dump() << '\n';
  }
  out.flush();
  COHORT_CHECK(out.good(), "{}: could not be written to its end", arguments.out);
  std::printf("%s: %ld %s problems of task %s\n",
              arguments.out.c_str(),
              static_cast<long>(arguments.count),
              arguments.split.c_str(),
              task->name().c_str());
  return 0;
}

}  // namespace

std::function<int()> add_problems(CLI::App& app) {
  const auto arguments = std::make_shared<Arguments>();
  app.add_option("--config", arguments->config, "YAML file with the task under rl.task")
      ->required()
      ->type_name("FILE");
  app.add_option("overrides", arguments->overrides, "Settings that replace the file's");
  app.add_option("--split", arguments->split, "train, or the held-out test")
      ->check(CLI::IsMember({"train", "test"}))
      ->capture_default_str();
  app.add_option("--count", arguments->count, "Different problems to write")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--out", arguments->out, "JSON lines: id, category, prompt, the task's own fields")
      ->required()
      ->type_name("FILE");
  return [arguments] { return write_problems(*arguments); };
}

}  // namespace cohort::cli
