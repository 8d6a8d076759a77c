// A stage's command, run to its end.
#pragma once
#include <string>
#include <vector>

namespace cohort::cli {

struct Ended {
  int status = 0;         ///< Exit status, or 128 + signal.
  bool stopped = false;   ///< Because this process got SIGTERM or SIGINT, which the child got too.
  std::string last_line;  ///< Of what it wrote.
};

/// Runs the command; what it writes goes to the terminal and, added at the end, to the file `log`.
/// SIGTERM and SIGINT are passed on once, so that trainings save; a second one kills. When this
/// process dies, the child gets SIGTERM. Throws InputError when the program is not there, Error
/// when it cannot be started.
Ended run_command(const std::vector<std::string>& command, const std::string& log);

}  // namespace cohort::cli
