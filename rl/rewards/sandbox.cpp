#include "rl/rewards/sandbox.h"

#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <fstream>
#include <thread>

#include "core/base/error.h"

namespace cohort::rl {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

/// A program may have locked its own folders: open them first.
void unlock(const fs::path& folder) {
  ::chmod(folder.c_str(), 0700);
  std::error_code ignored;
  for (fs::directory_iterator entry(folder, ignored), end; !ignored && entry != end;
       entry.increment(ignored))
    if (entry->symlink_status(ignored).type() == fs::file_type::directory) unlock(entry->path());
}

/// Appends what there is to read. False at the end of the output.
bool read_available(int fd, std::string& output, int64_t bound) {
  char bytes[65536];
  while (static_cast<int64_t>(output.size()) <= bound) {
    const ssize_t got = ::read(fd, bytes, sizeof bytes);
    if (got == 0) return false;
    if (got < 0) return errno == EAGAIN || errno == EINTR;
    output.append(bytes, static_cast<size_t>(got));
  }
  return true;
}

/// Reads until the program ends, the time is up or the output is too long.
Outcome::End watch(Process& process, double seconds, int64_t output_bytes, std::string& output) {
  const auto deadline = Clock::now() + std::chrono::duration<double>(seconds);
  bool open = true;
  while (true) {
    const bool ended = process.ended();  // before the read: all it wrote is in the pipe then
    if (open) open = read_available(process.output(), output, output_bytes);
    if (static_cast<int64_t>(output.size()) > output_bytes) return Outcome::kTooMuch;
    if (ended) return Outcome::kExited;
    if (Clock::now() >= deadline) return Outcome::kTimedOut;
    if (open) {
      pollfd waiting{process.output(), POLLIN, 0};
      ::poll(&waiting, 1, 10);
    } else {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
}

}  // namespace

ProgramFolder::ProgramFolder() {
  std::string name = (fs::temp_directory_path() / "cohort-program-XXXXXX").string();
  COHORT_CHECK(::mkdtemp(name.data()), "cannot make {}: {}", name, std::strerror(errno));
  path_ = name;
  if (::geteuid() == 0) {
    const uid_t user = unprivileged_user();
    if (::chown(path_.c_str(), user, user) != 0) ::chmod(path_.c_str(), 0755);
  }
}

ProgramFolder::~ProgramFolder() {
  std::error_code error;
  fs::remove_all(path_, error);
  if (!error) return;
  unlock(path_);
  fs::remove_all(path_, error);
}

std::string ProgramFolder::write(const std::string& name, const std::string& text) const {
  const std::string path = path_ + "/" + name;
  std::ofstream out(path, std::ios::binary);
  out << text;
  out.close();
  COHORT_CHECK(out.good(), "cannot write {}", path);
  ::chmod(path.c_str(), 0644);
  return path;
}

Outcome run_limited(const std::vector<std::string>& command,
                    const ProgramFolder& folder,
                    const std::string& input,
                    const Limits& limits,
                    int64_t output_bytes) {
  Outcome outcome;
  try {
    // Beside the folder, not in it: the program may have put anything there, a link for one.
    const ProgramFolder aside;
    const std::string stdin_file = aside.write("input", input);
    Process process({command, folder.path(), stdin_file, limits});
    outcome.network_closed = process.network_closed();
    outcome.end = watch(process, limits.seconds, output_bytes, outcome.output);
    outcome.status = process.finish();
  } catch (const Error& error) {
    outcome.end = Outcome::kNotStarted;
    outcome.output = error.what();
  }
  return outcome;
}

}  // namespace cohort::rl
