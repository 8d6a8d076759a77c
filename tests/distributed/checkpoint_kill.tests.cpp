// A process that is killed while it saves leaves a good set of checkpoints. Two ways to kill:
// before the k-th file operation, for every k, and after a random time.
//
// The saving processes are forked, so the test that forks them runs in a fresh process of its own
// (this program again, with a hidden test): no thread pool of another test is alive in it.
#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <set>

#include "core/base/rng.h"
#include "distributed/checkpoint.h"
#include "tests/catch.h"
#include "tests/distributed/checkpoint_cases.h"

using namespace cohort;
using namespace cohort::distributed;
using namespace cohort::tests;

namespace {

/// File operations left until this process is killed; 0: never.
std::atomic<int64_t> operations_left{0};

void count_operation() {
  if (operations_left > 0 && --operations_left == 0) ::kill(::getpid(), SIGKILL);
}

}  // namespace

// These take the place of libc's in this program, so that each passes by the counter.
extern "C" {
ssize_t write(int descriptor, const void* data, size_t size) {
  count_operation();
  return ::syscall(SYS_write, descriptor, data, size);
}
int fsync(int descriptor) {
  count_operation();
  return static_cast<int>(::syscall(SYS_fsync, descriptor));
}
int rename(const char* from, const char* to) noexcept {
  count_operation();
  return static_cast<int>(::syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0));
}
int mkdir(const char* path, mode_t mode) noexcept {
  count_operation();
  return static_cast<int>(::syscall(SYS_mkdirat, AT_FDCWD, path, mode));
}
int unlinkat(int folder, const char* path, int flags) noexcept {
  count_operation();
  return static_cast<int>(::syscall(SYS_unlinkat, folder, path, flags));
}
}

namespace {

/// Runs `body` in a forked process; returns its wait status.
int in_child(const std::function<void()>& body, const std::function<void(pid_t)>& meanwhile = {}) {
  const pid_t child = ::fork();
  if (child == 0) {
    try {
      body();
    } catch (...) {
      ::_exit(3);
    }
    ::_exit(0);
  }
  if (meanwhile) meanwhile(child);
  int status = 0;
  ::waitpid(child, &status, 0);
  return status;
}

bool was_killed(int status) { return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL; }

/// Every checkpoint there is verifies and holds what its step says.
void require_all_good(const std::string& folder) {
  for (const auto& [step, path] : checkpoints_in(folder)) {
    REQUIRE(verify_checkpoint(path) == std::vector<std::string>{});
    const CheckpointReader reader(path);
    REQUIRE(reader.state()["step"] == step);
    REQUIRE(at::equal(reader.tensor("layer.weight"), small_content(step).model[0].data));
  }
}

/// Kills a save of `step` into a copy of `start` before its 1st, 2nd, ... file operation, and looks
/// at what is left each time. Returns the number of operations.
int64_t kill_at_every_operation(const std::string& start,
                                int64_t step,
                                const std::set<std::vector<int64_t>>& allowed) {
  for (int64_t operation = 1;; ++operation) {
    const ScratchFolder folder;
    fs::copy(start, folder / "c", fs::copy_options::recursive);
    const int status = in_child([&] {
      CheckpointWriter writer(folder / "c", make_local_mesh(), 2, true);
      operations_left = operation;
      writer.save(step, small_content(step));
      if (!writer.finish()) ::_exit(4);
    });
    INFO("killed before operation " << operation);
    if (!was_killed(status)) {
      REQUIRE(WIFEXITED(status));
      REQUIRE(WEXITSTATUS(status) == 0);
      return operation - 1;
    }
    const auto newest = newest_good_checkpoint(folder / "c", make_local_mesh());
    REQUIRE(newest);
    REQUIRE(newest == checkpoints_in(folder / "c").front().path);
    const auto steps = steps_in(folder / "c");
    CAPTURE(steps);
    REQUIRE(allowed.count(steps) == 1);
    require_all_good(folder / "c");
    // The next run starts on clean ground.
    const CheckpointWriter next(folder / "c", make_local_mesh(), 2, true);
    REQUIRE(names_in(folder / "c").size() == steps.size());
    require_all_good(folder / "c");
  }
}

}  // namespace

TEST_CASE("in a process of its own: killed before every file operation", "[.][checkpoint-kill]") {
  const ScratchFolder start;
  {
    CheckpointWriter writer(start.path, make_local_mesh(), 2, true);
    for (const int64_t step : {1, 2}) writer.save(step, small_content(step));
  }
  const auto operations = kill_at_every_operation(start.path, 3, {{2, 1}, {3, 2, 1}, {3, 2}});
  CHECK(operations > 20);
  CHECK(kill_at_every_operation(start.path, 2, {{2, 1}}) > 20);  // Replaces step 2.
}

TEST_CASE("in a process of its own: killed at random moments", "[.][checkpoint-kill]") {
  const ScratchFolder folder;
  int64_t last_committed = 1, survived = 0, interrupted = 0;
  const auto start = std::chrono::steady_clock::now();
  {
    CheckpointWriter writer(folder / "c", make_local_mesh(), 3, true);
    writer.save(1, small_content(1));
  }
  const double one_save_us =
      std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count();
  for (uint64_t round = 0; round < 20; ++round) {
    int reports[2];
    REQUIRE(::pipe(reports) == 0);
    const int64_t first = last_committed + 1;
    const int status = in_child(
        [&] {
          CheckpointWriter writer(folder / "c", make_local_mesh(), 3, true);
          for (int64_t step = first;; ++step) {
            writer.save(step, small_content(step));
            if (!writer.finish()) ::_exit(4);
            if (::syscall(SYS_write, reports[1], &step, sizeof step) != sizeof step) ::_exit(5);
          }
        },
        [&](pid_t child) {
          ::usleep(static_cast<useconds_t>(4 * one_save_us * core::random_uniform(3, 0, round)));
          ::kill(child, SIGKILL);
        });
    ::close(reports[1]);
    int64_t step = 0;
    while (::read(reports[0], &step, sizeof step) == sizeof step) last_committed = step;
    ::close(reports[0]);
    REQUIRE(was_killed(status));
    const auto names = names_in(folder / "c");
    interrupted += std::any_of(names.begin(), names.end(), [](auto& n) { return n[0] == '.'; });
    REQUIRE(newest_good_checkpoint(folder / "c", make_local_mesh()));
    require_all_good(folder / "c");
    const int64_t newest = steps_in(folder / "c").front();
    REQUIRE(newest >= last_committed);
    survived += newest >= first;
    last_committed = newest;
  }
  // The kills came while saves were going on, and some saves were quicker.
  CHECK(interrupted > 0);
  CHECK(survived > 0);
}

TEST_CASE("a kill at any moment of a save leaves a good set of checkpoints",
          "[distributed-checkpoint]") {
  const std::string self = fs::read_symlink("/proc/self/exe");
  const pid_t child = ::fork();
  if (child == 0) {
    ::execl(self.c_str(), self.c_str(), "[checkpoint-kill]", static_cast<char*>(nullptr));
    ::_exit(127);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
}
