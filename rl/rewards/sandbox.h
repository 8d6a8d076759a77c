// One run of a program that nobody trusts.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "rl/rewards/process.h"

namespace cohort::rl {

/// A temporary folder for one program, removed with all that the program left in it.
class ProgramFolder {
 public:
  ProgramFolder();
  ~ProgramFolder();
  ProgramFolder(const ProgramFolder&) = delete;
  ProgramFolder& operator=(const ProgramFolder&) = delete;

  /// Writes a file into the folder and returns its path.
  std::string write(const std::string& name, const std::string& text) const;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

struct Outcome {
  enum End {
    kExited,      // by itself; `status` says how
    kTimedOut,    // killed at the wall-clock limit
    kTooMuch,     // killed for its output
    kNotStarted,  // `output` says why
  } end = kNotStarted;
  int status = 0;  // exit status, or 128 + signal
  std::string output;
  bool network_closed = true;
};

/// Runs the command with `input` as standard input, for at most limits.seconds of wall time and
/// output_bytes of output. Thread-safe. Nothing of the program is alive afterwards where process
/// namespaces are allowed; elsewhere one that left its process group may be.
Outcome run_limited(const std::vector<std::string>& command,
                    const ProgramFolder& folder,
                    const std::string& input,
                    const Limits& limits,
                    int64_t output_bytes);

}  // namespace cohort::rl
