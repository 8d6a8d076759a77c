// cohort data problems: the problems of a task as JSON lines.
#pragma once
#include <CLI/CLI.hpp>
#include <functional>

namespace cohort::cli {

/// Adds the subcommand's options to `app`; the result runs it once they are parsed.
std::function<int()> add_problems(CLI::App& app);

}  // namespace cohort::cli
