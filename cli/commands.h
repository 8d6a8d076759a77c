// The subcommands, one file each. A function adds its options to `app` and returns what to run once
// they are parsed; the result is the exit code. Exceptions are turned into exit codes by
// distributed::run_ranks in main.
#pragma once
#include <CLI/CLI.hpp>
#include <functional>

namespace cohort::cli {

using Run = std::function<int()>;

Run add_pretrain(CLI::App& app);
Run add_sft(CLI::App& app);
Run add_grpo(CLI::App& app);
Run add_sample(CLI::App& app);
Run add_eval(CLI::App& app);
Run add_generate(CLI::App& app);
Run add_data(CLI::App& app);
Run add_tokenizer(CLI::App& app);
Run add_convert(CLI::App& app);
Run add_inspect(CLI::App& app);
Run add_report(CLI::App& app);
Run add_recipe(CLI::App& app);
Run add_upcycle(CLI::App& app);

}  // namespace cohort::cli
