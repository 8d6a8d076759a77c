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

/// A place in a kernel's source that synchronises, which a fault can be planted in. kBarrier: also
/// arriving and waiting at an mbarrier; kWarp: also what orders products of wgmma.
struct SyncSite {
  enum Kind { kBarrier, kWarp, kCopyWait } kind;
  std::string file;
  int line;
  bool operator==(const SyncSite&) const = default;
};

/// The sites that the launches within `work` pass.
std::vector<SyncSite> sync_sites(const std::function<void()>& work);

/// While the object lives, the barrier, __syncwarp, arrival or wait at `site` does nothing; any
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

// mbarriers: 8 bytes of shared memory each, known by their address.
void mbarrier_init(const void* barrier, unsigned arrivals);
void mbarrier_arrive(const void* barrier, unsigned bytes_expected, const Where& where);
void mbarrier_wait(const void* barrier, unsigned parity, const Where& where);

/// What a CUtensorMap says of a tensor [tokens, heads, dim] of 16-bit elements that is read in
/// boxes of [box_rows, 1, 64], rows of 128 bytes permuted as CU_TENSOR_MAP_SWIZZLE_128B does.
struct BoxMap {
  const void* base = nullptr;
  int64_t tokens = 0, heads = 0, dim = 0;
  int box_rows = 0;
};
/// Copies a box from (column, head, token) on to shared memory behind the threads' backs and counts
/// its bytes at the barrier; what lies beyond the tensor becomes zero.
void copy_box(
    void* shared, const BoxMap& map, int column, int head, int token, const void* barrier);

/// wgmma of one warp: d [16, n] += a [16, 16] b [16, n], bf16 and fp32.
struct GroupProduct {
  int n;
  bool accumulate;        ///< Else d begins at zero.
  bool b_rows_across;     ///< b lies in memory as [k, n], n contiguous; else as [n, k].
  float* d[32];           ///< By lane, n / 2 each.
  const uint32_t* a[32];  ///< Registers by lane, or null: by descriptor.
  uint64_t a_descriptor, b_descriptor;
};
// By the last lane of the warp to come, for all.
void issue_product(const GroupProduct& product);
void fence_products();
void commit_products();
void wait_for_products(unsigned groups_left);
/// Bytes from the beginning of the dynamic shared memory; fails for other memory.
uint32_t shared_offset(const void* p);

struct LaunchShape {
  dim3 blocks, threads;
  size_t shared_bytes;
  const char* caller;
  const char* file;
  int line;
};
void run_grid(const LaunchShape& shape, void (*body)(void*), void* closure);

}  // namespace cohort::kernels::host
