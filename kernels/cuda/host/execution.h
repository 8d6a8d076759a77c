// Executing a kernel on the host: a block's threads are fibres that switch at synchronisations
// alone. kernels/cuda/device.cuh is the manual; this is what tests use besides, and what the
// intrinsics (intrinsics.h, ptx.cuh) are built of.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/cuda/host/vector_types.h"

namespace cohort::kernels::host {

/// Misuse that a device answers by hanging or with garbage: a deadlock, a lane outside its mask, a
/// launch beyond the limits. The text names launch, block, thread and source line.
class LaunchError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Which of the threads and blocks that could run does, and when asynchronous copies happen: as
/// late as possible (at the wait), as early as possible (at once), or either.
enum class Order { kInOrder, kReversed, kRandom };
struct Schedule {
  Order order = Order::kInOrder;
  uint64_t seed = 1;  ///< Of kRandom.
};

/// Launches of this OS thread follow `schedule` while the object lives.
class UseSchedule {
 public:
  explicit UseSchedule(Schedule schedule);
  ~UseSchedule();
  UseSchedule(const UseSchedule&) = delete;
  UseSchedule& operator=(const UseSchedule&) = delete;

 private:
  Schedule before_;
};

/// A place in a kernel's source that synchronises, which a fault can be planted in.
struct SyncSite {
  enum Kind { kBarrier, kWarp, kCopyWait } kind;
  std::string file;
  int line;
  bool operator==(const SyncSite&) const = default;
};

/// The sites that the launches within `work` pass.
std::vector<SyncSite> sync_sites(const std::function<void()>& work);

/// While the object lives, the barrier, __syncwarp or wait for copies at `site` does nothing; any
/// other warp intrinsic there runs with the lowest lane missing from its mask.
class PlantFault {
 public:
  explicit PlantFault(SyncSite site);
  ~PlantFault();
  PlantFault(const PlantFault&) = delete;
  PlantFault& operator=(const PlantFault&) = delete;
};

// ---- below: for the intrinsics ----

struct Block {
  uint3 index{};         ///< blockIdx
  dim3 threads, blocks;  ///< blockDim, gridDim
};
struct Thread {
  uint3 index{};      ///< threadIdx
  unsigned lane = 0;  ///< 0..31
  Block* block = nullptr;
};

extern constinit thread_local Thread* current;  ///< Null outside a launch.

/// std::source_location, which not every compiler that reads this has.
class Where {
 public:
  static constexpr Where current(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return {file, line};
  }
  constexpr Where() = default;
  constexpr Where(const char* file, int line) : file_(file), line_(line) {}
  constexpr const char* file_name() const { return file_; }
  constexpr int line() const { return line_; }

 private:
  const char* file_ = "";
  int line_ = 0;
};

/// Waits for every thread of the block, or for `threads` of them at barrier `id`; gives the number
/// of those that called with a true predicate.
int block_barrier(
    unsigned id, unsigned threads, bool predicate, const char* name, const Where& where);

/// Waits until every lane of `mask` calls the same intrinsic with the same mask; the last to come
/// runs finish(arguments by lane, mask), which reads and writes them all.
using Finish = void (*)(void* const* arguments, unsigned mask);
void warp_collective(
    const char* name, unsigned mask, void* arguments, Finish finish, const Where& where);

/// Bytes shared by the block, the same for each of its threads that gives the same tag.
void* shared_variable(const void* tag, size_t bytes, size_t alignment);
/// The launch's dynamic shared memory.
void* dynamic_shared();

/// dst is written, at the latest, by the wait for the group; `filled` < bytes: zeros beyond.
void copy_later(void* dst, const void* src, unsigned bytes, unsigned filled);
void commit_copies();
void wait_for_copies(unsigned groups_left, const Where& where);

struct LaunchShape {
  dim3 blocks, threads;
  size_t shared_bytes;
  const char* caller;
  const char* file;
  int line;
};
void run_grid(const LaunchShape& shape, void (*body)(void*), void* closure);

}  // namespace cohort::kernels::host
