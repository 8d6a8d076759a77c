// A command line cut into words, and put together again.
#pragma once
#include <optional>
#include <string>
#include <vector>

namespace cohort::cli {

/// As a shell does it: blanks separate; '...' and "..." keep them (backslash escapes inside "..."
/// and outside of quotes). Nothing is replaced. Nothing is returned when a quote is not closed.
std::optional<std::vector<std::string>> shell_words(const std::string& line);

/// The words as they may be typed into a shell.
std::string shell_line(const std::vector<std::string>& words);

}  // namespace cohort::cli
