#include "distributed/launch.h"

#include <ATen/Parallel.h>
#include <c10/util/Exception.h>
#include <malloc.h>
#include <mpi.h>
#include <omp.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "core/base/error.h"

namespace cohort::distributed {
namespace {

constexpr double kAgreementSeconds = 2;
constexpr int kFinalizeSeconds = 20;

int rank = 0;
int size = 1;
bool mpi_is_up = false;
MPI_Comm agreement = MPI_COMM_NULL;  // For run_ranks alone: nothing else is ever under way on it.

int tasks_of_srun() {
  const char* tasks = std::getenv("SLURM_STEP_NUM_TASKS");
  return tasks ? std::atoi(tasks) : 1;
}

[[noreturn]] void refuse_srun_without_mpi() {
  const char* task = std::getenv("SLURM_PROCID");
  if (!task || std::atoi(task) == 0)
    std::fprintf(stderr,
                 "cohort: srun started %d tasks without MPI support: use srun --mpi=pmix (see srun "
                 "--mpi=list) or mpirun\n",
                 tasks_of_srun());
  std::exit(2);
}

/// A training step frees and takes the same large blocks again and again. By default glibc gives
/// those of 32 MB and more back to the system each time, and their pages are cleared anew: a buffer
/// of fp32 logits costs more to touch than to compute. Kept on the heap they stay warm.
void keep_large_blocks() {
  mallopt(M_MMAP_MAX, 0);
  mallopt(M_TRIM_THRESHOLD, 2'000'000'000);
}

void share_cores() {
  if (const char* chosen = std::getenv("OMP_NUM_THREADS"); chosen && *chosen) return;
  int local_ranks = 1;
  if (mpi_is_up) {
    MPI_Comm machine;
    MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, rank, MPI_INFO_NULL, &machine);
    MPI_Comm_size(machine, &local_ranks);
    MPI_Comm_free(&machine);
  }
  const int cores = std::max(1, static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN)));
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  const int bound =
      sched_getaffinity(0, sizeof(allowed), &allowed) == 0 ? CPU_COUNT(&allowed) : cores;
  const int threads = std::max(1, std::min(cores / local_ranks, bound));
  if (rank == 0 && local_ranks > 1 && bound < cores / local_ranks)
    std::fprintf(stderr,
                 "cohort: mpirun binds each rank to %d of %d cores; --bind-to none lets %d ranks "
                 "use them all\n",
                 bound,
                 cores,
                 local_ranks);
  omp_set_num_threads(threads);
  at::set_num_threads(threads);
}

/// How a rank's body ended, as it is compared between ranks.
struct Ending {
  int64_t code = 0;
  std::string message;  ///< Empty when it ended without an exception.
};

Ending run_body(const std::function<int()>& body) {
  const auto first_line = [](const char* text) {
    return std::string(text, std::strcspn(text, "\n"));
  };
  try {
    return {body(), ""};
  } catch (const InputError& error) {
    return {2, error.what()};
  } catch (const c10::Error& error) {
    return {1, first_line(error.what_without_backtrace())};
  } catch (const std::bad_alloc&) {
    return {1, "out of memory"};
  } catch (const std::exception& error) {
    return {1, error.what()};
  } catch (...) {
    return {1, "an exception of unknown type"};
  }
}

/// Waits for `request` for at most `seconds` (without limit when negative).
bool arrives(MPI_Request& request, double seconds) {
  const auto start = std::chrono::steady_clock::now();
  for (;;) {
    int done = 0;
    MPI_Test(&request, &done, MPI_STATUS_IGNORE);
    if (done) return true;
    const std::chrono::duration<double> waited = std::chrono::steady_clock::now() - start;
    if (seconds >= 0 && waited.count() > seconds) return false;
    std::this_thread::sleep_for(std::chrono::microseconds(waited.count() < 0.05 ? 50 : 1000));
  }
}

/// The ends of all ranks, or nothing when some rank is still busy: a failed rank does not wait long
/// for it.
std::vector<Ending> endings_of_all(const Ending& own) {
  constexpr size_t kMessageBytes = 2000;
  struct Record {
    int64_t code;
    char message[kMessageBytes];
  };
  // Not freed: MPI may write here after this function gave up.
  auto* mine = new Record{};
  mine->code = own.code;
  std::strncpy(mine->message, own.message.c_str(), kMessageBytes - 1);
  auto* all = new std::vector<Record>(size);
  MPI_Request request;
  MPI_Iallgather(
      mine, sizeof(Record), MPI_BYTE, all->data(), sizeof(Record), MPI_BYTE, agreement, &request);
  if (!arrives(request, own.code == 0 ? -1 : kAgreementSeconds)) return {};
  std::vector<Ending> endings;
  for (const Record& record : *all) endings.push_back({record.code, record.message});
  delete all;
  delete mine;
  return endings;
}

/// Several faults are several lines.
void print(const std::string& message, int of_rank) {
  const std::string start = of_rank >= 0 ? fmt::format("cohort: rank {}: ", of_rank) : "cohort: ";
  for (size_t at = 0; at < message.size();) {
    const size_t end = std::min(message.find('\n', at), message.size());
    std::fprintf(stderr, "%s%s\n", start.c_str(), message.substr(at, end - at).c_str());
    at = end + 1;
  }
  std::fflush(stderr);
}

/// The job's exit code when every rank has come to its end; the first rank with a message prints
/// it.
int conclude(const std::vector<Ending>& endings, const Ending& own) {
  int64_t code = 0;  // Bad input's only when nothing else happened.
  bool all_alike = true;
  for (const Ending& ending : endings) {
    all_alike = all_alike && ending.message == endings[0].message;
    if (ending.code != 0 && (code == 0 || code == 2)) code = ending.code;
  }
  bool first_with_it = true;
  for (int other = 0; other < rank; ++other)
    first_with_it = first_with_it && endings[other].message != endings[rank].message;
  // What travelled may have been cut.
  if (first_with_it) print(own.message, all_alike ? -1 : rank);
  return static_cast<int>(code);
}

std::atomic<int> exit_code{1};
void leave_at_once(int) { _exit(exit_code.load()); }

std::atomic<bool> stop{false};
void on_stop_signal(int signal_number) {
  if (stop.exchange(true)) _exit(128 + signal_number);
}

}  // namespace

bool launched_with_mpi() {
  return std::getenv("OMPI_COMM_WORLD_SIZE") || std::getenv("PMI_SIZE") || std::getenv("PMIX_RANK");
}

int world_rank() { return rank; }
int world_size() { return size; }

void launch(int* argc, char*** argv) {
  keep_large_blocks();
  if (launched_with_mpi()) {
    // Copying through shared memory is never refused by a container, and was no slower where both
    // worked; a waiting rank must let others have its core.
    setenv("OMPI_MCA_btl_vader_single_copy_mechanism", "none", 0);
    setenv("OMPI_MCA_mpi_yield_when_idle", "1", 0);
    int provided = 0;
    MPI_Init_thread(argc, argv, MPI_THREAD_MULTIPLE, &provided);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    if (size == 1 && tasks_of_srun() > 1) refuse_srun_without_mpi();
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_dup(MPI_COMM_WORLD, &agreement);
    mpi_is_up = true;
  } else if (tasks_of_srun() > 1) {
    refuse_srun_without_mpi();
  }
  share_cores();
}

int run_ranks(const std::function<int()>& body) {
  const Ending own = run_body(body);
  int code = static_cast<int>(own.code);
  if (!mpi_is_up) {
    print(own.message, -1);
    return code;
  }
  const std::vector<Ending> endings = endings_of_all(own);
  if (endings.empty()) {
    print(own.message, size > 1 ? rank : -1);
    MPI_Abort(MPI_COMM_WORLD, code);
    _exit(code);  // MPI_Abort may return while it is still taking the others down.
  }
  code = conclude(endings, own);
  // After a failure messages may be left under way, for which MPI_Finalize could wait.
  if (code != 0) {
    exit_code = code;
    std::signal(SIGALRM, leave_at_once);
    alarm(kFinalizeSeconds);
  }
  MPI_Comm_free(&agreement);
  MPI_Finalize();
  mpi_is_up = false;
  return code;
}

void catch_stop_signals() {
  struct sigaction action {};
  action.sa_handler = on_stop_signal;
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGINT, &action, nullptr);
}

bool stop_requested() { return stop.load(); }

}  // namespace cohort::distributed
