#include "cli/recipe/child.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>

#include "core/base/error.h"

namespace cohort::cli {
namespace {

volatile sig_atomic_t stop_signals = 0;
volatile sig_atomic_t child_group = 0;

void on_stop(int) {
  stop_signals = stop_signals + 1;
  if (child_group > 0) kill(-child_group, stop_signals > 1 ? SIGKILL : SIGTERM);
}

/// on_stop for SIGTERM and SIGINT as long as it lives.
class StopSignals {
 public:
  StopSignals() {
    struct sigaction action {};
    action.sa_handler = on_stop;
    sigaction(SIGTERM, &action, &terminate_);
    sigaction(SIGINT, &action, &interrupt_);
  }
  ~StopSignals() {
    child_group = 0;
    sigaction(SIGTERM, &terminate_, nullptr);
    sigaction(SIGINT, &interrupt_, nullptr);
  }

 private:
  struct sigaction terminate_ {
  }, interrupt_{};
};

[[noreturn]] void become(const std::vector<std::string>& command,
                         int output,
                         int failure,
                         pid_t parent) {
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (getppid() != parent) _exit(1);
  const int nothing = open("/dev/null", O_RDONLY);
  dup2(nothing, STDIN_FILENO);
  dup2(output, STDOUT_FILENO);
  dup2(output, STDERR_FILENO);
  std::vector<char*> words;
  for (const std::string& word : command) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  execvp(words[0], words.data());
  const int reason = errno;
  [[maybe_unused]] const ssize_t written = write(failure, &reason, sizeof(reason));
  _exit(127);
}

void write_all(int descriptor, const char* bytes, size_t size) {
  while (size > 0) {
    const ssize_t written = write(descriptor, bytes, size);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return;  // a closed terminal or a full disk stops no training
    bytes += written;
    size -= written;
  }
}

/// The last line that is not empty, of pieces as they come.
class LastLine {
 public:
  void add(const char* bytes, size_t size) {
    for (size_t at = 0; at < size; ++at) {
      if (bytes[at] != '\n' && bytes[at] != '\r') {
        if (line_.size() < 500) line_ += bytes[at];
      } else if (!line_.empty()) {
        last_ = std::move(line_);
        line_.clear();
      }
    }
  }
  std::string text() const { return line_.empty() ? last_ : line_; }

 private:
  std::string line_, last_;
};

}  // namespace

Ended run_command(const std::vector<std::string>& command, const std::string& log) {
  int output[2], failure[2];
  COHORT_CHECK(pipe2(output, O_CLOEXEC) == 0 && pipe2(failure, O_CLOEXEC) == 0,
               "no pipe for {}: {}",
               command[0],
               std::strerror(errno));
  const int log_file = open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  COHORT_CHECK(log_file >= 0, "{}: cannot be written: {}", log, std::strerror(errno));
  const StopSignals signals;
  const pid_t parent = getpid();
  const pid_t child = fork();
  COHORT_CHECK(child >= 0, "{} cannot be started: {}", command[0], std::strerror(errno));
  if (child == 0) become(command, output[1], failure[1], parent);
  setpgid(child, child);
  child_group = child;
  if (stop_signals > 0) kill(-child, SIGTERM);  // it came before there was a group to tell
  close(output[1]);
  close(failure[1]);

  LastLine last;
  char buffer[8192];
  for (;;) {
    const ssize_t count = read(output[0], buffer, sizeof(buffer));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) break;
    write_all(STDOUT_FILENO, buffer, count);
    write_all(log_file, buffer, count);
    last.add(buffer, count);
  }
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  child_group = 0;
  int reason = 0;
  const bool started = read(failure[0], &reason, sizeof(reason)) != sizeof(reason);
  close(output[0]);
  close(failure[0]);
  close(log_file);
  COHORT_CHECK_INPUT(started,
                     "{} cannot be run ({}); want a program that is on PATH",
                     command[0],
                     std::strerror(reason));
  const int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return {code, stop_signals > 0, last.text()};
}

}  // namespace cohort::cli
