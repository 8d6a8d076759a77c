#include "distributed/mpi_requests.h"

#include <fmt/format.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <optional>
#include <set>
#include <thread>

#include "core/base/error.h"
#include "distributed/communicator.h"
#include "distributed/launch.h"

namespace cohort::distributed {
namespace {

std::atomic<int64_t> piece_bytes{int64_t{256} << 20};

// Polls that give the core away but do not sleep: an exchange between running ranks ends within
// them. Later ones sleep, because with more ranks than cores a sleeper costs nothing. A long
// message goes through shared memory bit by bit, pushed by polls, so it gets more of them.
constexpr int64_t kEagerPolls = 200;
constexpr int64_t kBytesAPoll = 4096;
constexpr int kPollsATest = 8;
constexpr auto kShortSleep = std::chrono::microseconds(20);
constexpr auto kLongSleep = std::chrono::microseconds(100);
constexpr int kShortSleeps = 100;

// How long a rank that was told to stop waits for the others. They stop after the same step, or
// they are gone: mpirun tells the rest to stop when one rank has died.
constexpr double kSecondsAfterStop = 15;

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

void set_message_piece_bytes(int64_t bytes) { piece_bytes = bytes; }

void check_mpi(int code, const Operation& operation) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  MPI_Error_string(code, text, &length);
  throw Error(fmt::format("{} number {} on axis {} failed on its rank {}: {}",
                          operation.name,
                          operation.sequence,
                          operation.axis,
                          operation.rank,
                          text));
}

Requests::Requests(MPI_Comm comm, Operation operation)
    : comm_(comm),
      operation_(std::move(operation)),
      tag_(static_cast<int>(operation_.sequence & 0x7fff)) {}

Requests::~Requests() {
  if (active_.empty()) return;
  for (size_t i = 0; i < active_.size(); ++i)
    if (from_[i] >= 0 && active_[i] != MPI_REQUEST_NULL) MPI_Cancel(&active_[i]);
  new std::vector<at::Tensor>(std::move(buffers_));
}

void Requests::add(MPI_Request request) {
  active_.push_back(request);
  from_.push_back(-1);
  expected_.push_back(0);
}

void Requests::receive(void* data, int64_t bytes, int from) {
  bytes_posted_ += bytes;
  auto* bytes_at = static_cast<char*>(data);
  for (const int64_t piece = piece_bytes; bytes > 0;) {
    const int count = static_cast<int>(std::min(bytes, piece));
    MPI_Request request;
    check_mpi(MPI_Irecv(bytes_at, count, MPI_BYTE, from, tag_, comm_, &request), operation_);
    active_.push_back(request);
    from_.push_back(from);
    expected_.push_back(count);
    bytes_at += count;
    bytes -= count;
  }
}

void Requests::send(const void* data, int64_t bytes, int to) {
  bytes_posted_ += bytes;
  const auto* bytes_at = static_cast<const char*>(data);
  for (const int64_t piece = piece_bytes; bytes > 0;) {
    const int count = static_cast<int>(std::min(bytes, piece));
    MPI_Request request;
    check_mpi(MPI_Isend(bytes_at, count, MPI_BYTE, to, tag_, comm_, &request), operation_);
    add(request);
    bytes_at += count;
    bytes -= count;
  }
}

int Requests::poll() {
  if (active_.empty()) return 0;
  const int count = static_cast<int>(active_.size());
  finished_.resize(count);
  statuses_.resize(count);
  int num_finished = 0;
  const int code =
      MPI_Testsome(count, active_.data(), &num_finished, finished_.data(), statuses_.data());
  if (code == MPI_ERR_IN_STATUS) {
    for (int i = 0; i < num_finished; ++i) check_mpi(statuses_[i].MPI_ERROR, operation_);
  }
  check_mpi(code, operation_);
  if (num_finished <= 0) return 0;
  for (int i = 0; i < num_finished; ++i) {
    const int from = from_[finished_[i]];
    int count = 0;
    if (from >= 0) MPI_Get_count(&statuses_[i], MPI_BYTE, &count);
    COHORT_CHECK(from < 0 || count == expected_[finished_[i]],
                 "{} number {} on axis {}: its rank {} expected {} bytes from rank {} and got {}",
                 operation_.name,
                 operation_.sequence,
                 operation_.axis,
                 operation_.rank,
                 expected_[finished_[i]],
                 from,
                 count);
  }
  size_t kept = 0;
  for (size_t i = 0; i < active_.size(); ++i) {
    if (active_[i] == MPI_REQUEST_NULL) continue;
    active_[kept] = active_[i];
    from_[kept] = from_[i];
    expected_[kept++] = expected_[i];
  }
  active_.resize(kept);
  from_.resize(kept);
  expected_.resize(kept);
  return num_finished;
}

bool Requests::test() {
  for (int i = 0; i < kPollsATest && !done(); ++i) poll();
  return done();
}

void Requests::wait() {
  const auto start = Clock::now();
  std::optional<Clock::time_point> stopped;
  const int64_t eager_polls = kEagerPolls + bytes_posted_ / kBytesAPoll;
  for (int64_t idle_polls = 0; !done();) {
    idle_polls = poll() > 0 ? 0 : idle_polls + 1;
    if (done()) return;
    if (idle_polls < eager_polls) {
      sched_yield();
      continue;
    }
    std::this_thread::sleep_for(idle_polls < eager_polls + kShortSleeps ? kShortSleep : kLongSleep);
    const double limit = collective_timeout();
    if (limit > 0 && seconds_since(start) > limit) give_up(seconds_since(start));
    if (!stopped && stop_requested()) stopped = Clock::now();
    COHORT_CHECK(
        !stopped || seconds_since(*stopped) < kSecondsAfterStop,
        "told to stop, and {} number {} on axis {} got no answer for {:g} s: another rank has died",
        operation_.name,
        operation_.sequence,
        operation_.axis,
        kSecondsAfterStop);
  }
}

void Requests::give_up(double seconds) const {
  std::set<int> missing(from_.begin(), from_.end());
  missing.erase(-1);
  throw Error(fmt::format(
      "{} number {} on axis {} has taken its rank {} {:.1f} s (the limit is "
      "run.timeout_s={:g}){}",
      operation_.name,
      operation_.sequence,
      operation_.axis,
      operation_.rank,
      seconds,
      collective_timeout(),
      missing.empty() ? std::string()
                      : fmt::format("; nothing came from its rank {}", fmt::join(missing, ", "))));
}

}  // namespace cohort::distributed
