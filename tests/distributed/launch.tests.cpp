// What a process alone does; jobs of several ranks that fail are tested end to end.
#include "distributed/launch.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

#include "core/base/error.h"
#include "tests/catch.h"

using namespace cohort::distributed;

namespace {

struct Outcome {
  int code;
  std::string stderr_text;
};

/// Runs `body` in a child process and collects its exit code and stderr.
Outcome in_child(const std::function<int()>& body) {
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  const pid_t child = fork();
  if (child == 0) {
    dup2(ends[1], STDERR_FILENO);
    close(ends[0]);
    close(ends[1]);
    _exit(body());
  }
  close(ends[1]);
  Outcome outcome;
  char buffer[4096];
  for (ssize_t n; (n = read(ends[0], buffer, sizeof buffer)) > 0;)
    outcome.stderr_text.append(buffer, n);
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  outcome.code = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  return outcome;
}

}  // namespace

TEST_CASE("A process started alone is a world of one rank", "[distributed][launch]") {
  if (launched_with_mpi()) return;
  CHECK(world_rank() == 0);
  CHECK(world_size() == 1);
}

TEST_CASE("Exceptions become exit codes and one line on stderr", "[distributed][launch]") {
  const auto outcome_of = [](const std::function<int()>& body) {
    return in_child([&] { return run_ranks(body); });
  };
  const Outcome good = outcome_of([] { return 0; });
  CHECK(good.code == 0);
  CHECK(good.stderr_text.empty());

  const Outcome input = outcome_of([]() -> int { throw cohort::InputError("mesh.ep=3: use 1"); });
  CHECK(input.code == 2);
  CHECK(input.stderr_text == "cohort: mesh.ep=3: use 1\n");

  const Outcome other = outcome_of([]() -> int { throw cohort::Error("7 is not 8"); });
  CHECK(other.code == 1);
  CHECK(other.stderr_text == "cohort: 7 is not 8\n");

  const Outcome library = outcome_of([]() -> int {
    TORCH_CHECK(false, "sizes differ\nsecond line");
    return 0;
  });
  CHECK(library.code == 1);
  CHECK(library.stderr_text == "cohort: sizes differ\n");

  const Outcome memory = outcome_of([]() -> int { throw std::bad_alloc(); });
  CHECK(memory.code == 1);
  CHECK(memory.stderr_text == "cohort: out of memory\n");

  const Outcome own_code = outcome_of([] { return 7; });
  CHECK(own_code.code == 7);
}

TEST_CASE("The first stop signal is noted and the second ends the process",
          "[distributed][launch]") {
  const Outcome once = in_child([] {
    catch_stop_signals();
    const bool before = stop_requested();
    raise(SIGTERM);
    return !before && stop_requested() ? 0 : 1;
  });
  CHECK(once.code == 0);
  const Outcome twice = in_child([] {
    catch_stop_signals();
    raise(SIGINT);
    raise(SIGINT);
    return 0;
  });
  CHECK(twice.code == 128 + SIGINT);
}

TEST_CASE("Tasks of srun without MPI support are told how to start", "[distributed][launch]") {
  const Outcome refused = in_child([] {
    unsetenv("OMPI_COMM_WORLD_SIZE");
    unsetenv("PMI_SIZE");
    unsetenv("PMIX_RANK");
    setenv("SLURM_STEP_NUM_TASKS", "4", 1);
    setenv("SLURM_PROCID", "0", 1);
    launch(nullptr, nullptr);
    return 0;
  });
  CHECK(refused.code == 2);
  CHECK(refused.stderr_text.find("srun --mpi=pmix") != std::string::npos);
}
