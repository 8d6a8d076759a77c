#include "rl/rewards/process.h"

#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "core/base/error.h"

extern char** environ;

namespace cohort::rl {
namespace {

constexpr int kReport = 3;  // the child's end of the report pipe
constexpr char kNetworkOpen = 'n';
constexpr char kNotStarted = 'x';  // followed by errno

/// What the child needs, made before the fork: between fork and exec nothing may allocate.
struct Prepared {
  std::string program;
  std::vector<char*> argv, environment;
  std::vector<std::string> environment_text;
  const char* folder = nullptr;
  int input = -1, output = -1, error = -1, report = -1;
  const Limits* limits = nullptr;
  bool drop_root = false;
  uid_t user = 0;
  long last_fd = 0;
};

void limit(int resource, int64_t soft, int64_t hard) {
  const rlimit value{static_cast<rlim_t>(soft), static_cast<rlim_t>(hard)};
  ::setrlimit(resource, &value);
}

void set_limits(const Limits& limits) {
  const int64_t seconds = static_cast<int64_t>(std::ceil(limits.seconds));
  limit(RLIMIT_CPU, seconds, seconds + 1);
  limit(RLIMIT_AS, limits.memory_bytes, limits.memory_bytes);
  limit(RLIMIT_FSIZE, limits.file_bytes, limits.file_bytes);
  limit(RLIMIT_NPROC, limits.processes, limits.processes);
  limit(RLIMIT_NOFILE, 64, 64);
  limit(RLIMIT_CORE, 0, 0);
}

[[noreturn]] void give_up() {
  const int error = errno;
  char message[1 + sizeof error] = {kNotStarted};
  std::memcpy(message + 1, &error, sizeof error);
  [[maybe_unused]] auto written = ::write(kReport, message, sizeof message);
  ::_exit(127);
}

[[noreturn]] void execute(const Prepared& prepared) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);  // a killed run leaves no program behind
  if (prepared.limits) {
    set_limits(*prepared.limits);
    if (prepared.drop_root &&
        (::setgroups(0, nullptr) || ::setgid(prepared.user) || ::setuid(prepared.user)))
      give_up();
    ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);  // a change of user clears it
  }
  ::execve(prepared.program.c_str(), prepared.argv.data(), prepared.environment.data());
  give_up();
}

/// New namespaces for network, processes and System V IPC: as root directly, else inside a new user
/// namespace. False when the kernel forbids both.
bool isolate() {
  constexpr int kSpaces = CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWIPC;
  return ::unshare(kSpaces) == 0 || ::unshare(kSpaces | CLONE_NEWUSER) == 0;
}

/// Starts the program `levels` generations down and ends as it ends.
[[noreturn]] void supervise(const Prepared& prepared, int levels) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  const pid_t inner = ::_Fork();
  if (inner < 0) give_up();
  if (inner == 0) {
    if (levels > 1) supervise(prepared, levels - 1);
    execute(prepared);
  }
  for (int fd = 0; fd <= kReport; ++fd) ::close(fd);
  int status = 0;
  for (pid_t ended = 0; ended != inner;) {
    ended = ::waitpid(-1, &status, 0);  // orphans of a process namespace come here too
    if (ended < 0 && errno != EINTR) ::_exit(127);
  }
  ::_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

/// The outer child of an untrusted program. Its own child is the first process of the new process
/// namespace: when that ends, everything the program started dies with it. The program is a
/// generation further down, for the first process is deaf to its own signals.
[[noreturn]] void shut_in(const Prepared& prepared) {
  if (isolate()) supervise(prepared, 2);
  const char message = kNetworkOpen;
  [[maybe_unused]] auto written = ::write(kReport, &message, 1);
  supervise(prepared, 1);
}

[[noreturn]] void in_child(const Prepared& prepared) {
  ::setpgid(0, 0);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  for (int number : {SIGPIPE, SIGINT, SIGTERM, SIGCHLD, SIGXCPU, SIGXFSZ})
    ::signal(number, SIG_DFL);
  ::dup2(prepared.input, 0);
  ::dup2(prepared.output, 1);
  if (prepared.error >= 0) ::dup2(prepared.error, 2);
  ::dup2(prepared.report, kReport);
  ::fcntl(kReport, F_SETFD, FD_CLOEXEC);
  if (::syscall(SYS_close_range, kReport + 1, ~0U, 0) != 0)  // a kernel before 5.9
    for (long fd = kReport + 1; fd < prepared.last_fd; ++fd) ::close(static_cast<int>(fd));
  if (prepared.folder && ::chdir(prepared.folder) != 0) give_up();
  if (prepared.limits) shut_in(prepared);
  execute(prepared);
}

struct Pipe {
  int read = -1, write = -1;
  Pipe() {
    int ends[2];
    COHORT_CHECK(::pipe2(ends, O_CLOEXEC) == 0, "cannot make a pipe: {}", std::strerror(errno));
    read = ends[0];
    write = ends[1];
  }
  ~Pipe() {
    close_end(read);
    close_end(write);
  }
  Pipe(const Pipe&) = delete;
  static void close_end(int& fd) {
    if (fd >= 0) ::close(fd);
    fd = -1;
  }
};

void set_nonblocking(int fd) { ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK); }

int open_or_throw(const char* path, int flags) {
  const int fd = ::open(path, flags | O_CLOEXEC);
  COHORT_CHECK(fd >= 0, "cannot open {}: {}", path, std::strerror(errno));
  return fd;
}

Prepared prepare(const Launch& launch) {
  COHORT_CHECK(!launch.command.empty(), "no program to start");
  Prepared prepared;
  const char* path = std::getenv("PATH");
  prepared.program = find_program(launch.command[0], launch.limits || !path ? kSafePath : path);
  COHORT_CHECK(!prepared.program.empty(), "there is no program {}", launch.command[0]);
  for (const std::string& argument : launch.command)
    prepared.argv.push_back(const_cast<char*>(argument.c_str()));
  prepared.argv.push_back(nullptr);
  if (!launch.folder.empty()) prepared.folder = launch.folder.c_str();
  if (launch.limits) {
    prepared.limits = &*launch.limits;
    prepared.drop_root = ::geteuid() == 0;
    struct stat owner = {};
    if (prepared.folder && ::stat(prepared.folder, &owner) == 0) prepared.user = owner.st_uid;
    if (prepared.user == 0) prepared.user = unprivileged_user();
    prepared.environment_text = {std::string("PATH=") + kSafePath,
                                 "HOME=" + launch.folder,
                                 "TMPDIR=" + launch.folder,
                                 "LANG=C.UTF-8",
                                 "OMP_NUM_THREADS=1"};
    for (std::string& variable : prepared.environment_text)
      prepared.environment.push_back(variable.data());
  } else {
    for (char** variable = environ; *variable; ++variable)
      prepared.environment.push_back(*variable);
  }
  prepared.environment.push_back(nullptr);
  prepared.last_fd = ::sysconf(_SC_OPEN_MAX);
  return prepared;
}

}  // namespace

std::string find_program(const std::string& name, const std::string& path) {
  if (name.find('/') != std::string::npos) return ::access(name.c_str(), X_OK) == 0 ? name : "";
  for (size_t start = 0; start <= path.size();) {
    const size_t end = std::min(path.find(':', start), path.size());
    const std::string full = path.substr(start, end - start) + "/" + name;
    if (::access(full.c_str(), X_OK) == 0) return full;
    start = end + 1;
  }
  return "";
}

uid_t unprivileged_user() {
  static std::atomic<unsigned> count{0};
  // Between the users of people and of services, and within the 65536 that containers map.
  return 61184 + (static_cast<unsigned>(::getpid()) * 37 + count++) % 4000;
}

Process::Process(const Launch& launch) {
  Prepared prepared = prepare(launch);
  Pipe input, output, report;
  int file = -1, null = -1;
  if (!launch.stdin_file.empty()) file = open_or_throw(launch.stdin_file.c_str(), O_RDONLY);
  if (launch.limits) null = open_or_throw("/dev/null", O_WRONLY);
  prepared.input = file >= 0 ? file : input.read;
  prepared.output = output.write;
  prepared.error = null;
  prepared.report = report.write;
  child_ = ::fork();
  if (child_ == 0) in_child(prepared);
  const int error = errno;
  Pipe::close_end(file);
  Pipe::close_end(null);
  COHORT_CHECK(child_ > 0, "cannot start {}: {}", launch.command[0], std::strerror(error));
  ::setpgid(child_, child_);  // both sides: neither knows who comes first
  Pipe::close_end(report.write);
  input_ = std::exchange(input.write, -1);
  output_ = std::exchange(output.read, -1);
  if (!launch.stdin_file.empty()) close_input();
  if (input_ >= 0) set_nonblocking(input_);
  set_nonblocking(output_);

  // The report ends when the program starts, or says why it did not.
  std::string said;
  char bytes[16];
  for (ssize_t got; (got = ::read(report.read, bytes, sizeof bytes)) != 0;) {
    if (got < 0 && errno != EINTR) break;
    if (got > 0) said.append(bytes, static_cast<size_t>(got));
  }
  network_closed_ = launch.limits && said.find(kNetworkOpen) != 0;
  const size_t failed = said.find(kNotStarted);
  if (failed != std::string::npos && said.size() >= failed + 1 + sizeof(int)) {
    int reason = 0;
    std::memcpy(&reason, said.data() + failed + 1, sizeof reason);
    finish();
    close_all();
    throw Error(fmt::format("cannot start {}: {}", launch.command[0], std::strerror(reason)));
  }
}

Process::~Process() {
  finish();
  close_all();
}

void Process::close_input() { Pipe::close_end(input_); }

void Process::close_all() {
  Pipe::close_end(input_);
  Pipe::close_end(output_);
}

bool Process::ended() const {
  if (child_ < 0) return true;
  siginfo_t info = {};
  return ::waitid(P_PID, static_cast<id_t>(child_), &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
         info.si_pid == child_;
}

int Process::finish() {
  if (child_ < 0) return status_;
  ::kill(-child_, SIGKILL);
  int status = 0;
  while (::waitpid(child_, &status, 0) < 0 && errno == EINTR) {
  }
  child_ = -1;
  status_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return status_;
}

}  // namespace cohort::rl
