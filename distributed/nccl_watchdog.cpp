#include "distributed/nccl_watchdog.h"

#include <mpi.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>

#include "core/base/error.h"
#include "distributed/launch.h"

namespace cohort::distributed {
namespace {

constexpr double kAbortSeconds = 5;  // ncclCommAbort may itself hang when a GPU is lost.

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void end_the_job(const std::string& message) {
  if (world_size() > 1)
    std::fprintf(stderr, "cohort: rank %d: %s\n", world_rank(), message.c_str());
  else
    std::fprintf(stderr, "cohort: %s\n", message.c_str());
  std::fflush(stderr);
  if (launched_with_mpi()) MPI_Abort(MPI_COMM_WORLD, 1);
  _exit(1);
}

}  // namespace

NcclWatchdog::NcclWatchdog(NcclCalls calls, Options options)
    : calls_(std::move(calls)), options_(std::move(options)), thread_([this] { run(); }) {}

NcclWatchdog::~NcclWatchdog() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  thread_.join();
  if (!aborter_.joinable()) return;
  for (const double start = now(); !*aborted_ && now() - start < kAbortSeconds;) usleep(1000);
  if (*aborted_)
    aborter_.join();
  else
    aborter_.detach();  // It holds what it uses.
}

void NcclWatchdog::enlist(std::shared_ptr<NcclLink> link) {
  check();
  const std::lock_guard lock(mutex_);
  links_.push_back(std::move(link));
}

bool NcclWatchdog::withdraw(const std::shared_ptr<NcclLink>& link) {
  const std::lock_guard lock(mutex_);
  watch_.forget(link.get());
  std::erase(links_, link);
  return failure_.empty();
}

void NcclWatchdog::add(const NcclLink* link, Operation operation, CollectiveWatch::Probe probe) {
  const std::lock_guard lock(mutex_);
  watch_.add(link, std::move(operation), std::move(probe));
}

void NcclWatchdog::check() {
  const std::lock_guard lock(mutex_);
  if (failure_.empty()) return;
  heard_ = true;
  throw Error(failure_);
}

void NcclWatchdog::fail(const std::string& message) {
  const std::lock_guard lock(mutex_);
  fail_locked(message);
}

void NcclWatchdog::drain(const NcclLink* link) {
  for (;; usleep(50)) {
    check();
    const std::lock_guard lock(mutex_);
    look();
    if (failure_.empty() && watch_.under_way(link) == 0) return;
  }
}

void NcclWatchdog::run() {
  calls_.enter_thread();
  const auto interval = std::chrono::duration<double>(options_.look_every_s);
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    wake_.wait_for(lock, interval);
    if (failure_.empty()) look();
    if (failure_.empty() || heard_ || told_ || now() - failed_at_ < options_.grace_s) continue;
    told_ = true;
    options_.unheard ? options_.unheard(failure_) : end_the_job(failure_);
  }
}

void NcclWatchdog::look() {
  // An error that NCCL reports says more than that its operations do not end.
  poll_links();
  if (const auto message = watch_.poll(now(), collective_timeout())) fail_locked(*message);
}

void NcclWatchdog::poll_links() {
  for (const auto& link : links_) {
    const std::lock_guard lock(link->mutex);
    if (!link->comm || link->aborted) continue;
    int state = NcclCalls::kSuccess;
    const int code = calls_.async_error(link->comm, &state);
    const int fault = code == NcclCalls::kSuccess ? state : code;
    if (fault == NcclCalls::kSuccess || fault == NcclCalls::kInProgress) continue;
    fail_locked(watch_.fault(link.get(), link->last, calls_.nccl_words(fault, link->comm)));
  }
}

void NcclWatchdog::fail_locked(const std::string& message) {
  if (!failure_.empty()) return;
  failure_ = message;
  failed_at_ = now();
  aborted_ = std::make_shared<std::atomic<bool>>(false);
  aborter_ = std::thread([calls = calls_, links = links_, done = aborted_] {
    calls.enter_thread();
    for (const auto& link : links) {
      void* comm = nullptr;
      {
        const std::lock_guard lock(link->mutex);
        if (!link->aborted) comm = link->comm;
        link->aborted = true;
      }
      if (comm) calls.abort(comm);
    }
    *done = true;
  });
}

}  // namespace cohort::distributed
