// Child processes of rewards: an external command that is trusted, or a model's program that is
// not.
#pragma once
#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace cohort::rl {

/// What an untrusted program may use.
struct Limits {
  double seconds = 5;  // processor time of a process; wall time is the caller's
  int64_t memory_bytes = int64_t{512} << 20;  // address space of a process
  int64_t file_bytes = int64_t{8} << 20;      // largest file
  int64_t processes = 32;                     // processes and threads at once
};

struct Launch {
  std::vector<std::string> command;  // the program, sought on PATH unless it holds a slash
  std::string folder;                // working directory; empty for the parent's
  std::string stdin_file;            // read as standard input; empty for a pipe (Process::input)
  /// With limits the program is shut in: no network and no sight of other processes (where the
  /// kernel lets us), another user than root, an empty environment but PATH and HOME, no standard
  /// error.
  std::optional<Limits> limits;
};

/// A running child in a process group of its own. Killed, with all it started, when the object
/// goes.
class Process {
 public:
  /// Throws Error when it cannot be started.
  explicit Process(const Launch& launch);
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  /// Writing end of standard input, reading end of standard output; both non-blocking. -1 once
  /// closed.
  int input() const { return input_; }
  int output() const { return output_; }
  void close_input();

  /// True once the child has ended; it stays unreaped so that its group's number is not reused.
  bool ended() const;
  /// Kills what is left of the group and reaps the child. Its exit status, or 128 + signal.
  int finish();

  /// False when the kernel did not let us take the network away.
  bool network_closed() const { return network_closed_; }

 private:
  void close_all();

  pid_t child_ = -1;
  int input_ = -1, output_ = -1;
  int status_ = 0;
  bool network_closed_ = false;
};

/// The absolute path of a program; empty when there is none.
std::string find_program(const std::string& name, const std::string& path);

/// The PATH that untrusted programs get.
inline constexpr const char* kSafePath = "/usr/local/bin:/usr/bin:/bin";

/// The user that untrusted programs run as when we are root: one nobody owns, another for each
/// object.
uid_t unprivileged_user();

}  // namespace cohort::rl
