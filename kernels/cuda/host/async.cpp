// What a device does behind its threads' backs: cp.async, bulk copies that count at mbarriers, and
// the products of wgmma. Each happens as late as it may, as early as it can, or by chance, as the
// schedule says.
#include <algorithm>
#include <bit>
#include <cstring>

#include "kernels/cuda/host/run.h"

namespace cohort::kernels::host {

bool happens_at_once(Run& run) {
  const Order order = order_in_use();
  return order == Order::kReversed || (order == Order::kRandom && next_random(run.random) % 2 == 0);
}

void end_one_copy(Run& run) {
  const size_t i =
      order_in_use() == Order::kRandom ? next_random(run.random) % run.under_way.size() : 0;
  const auto copy = std::move(run.under_way[i]);
  run.under_way.erase(run.under_way.begin() + static_cast<std::ptrdiff_t>(i));
  copy();
}

// ---- cp.async

namespace {
void perform(const Copy& copy) {
  std::memcpy(copy.dst, copy.src, copy.filled);
  std::memset(static_cast<char*>(copy.dst) + copy.filled, 0, copy.bytes - copy.filled);
}
}  // namespace

void copy_later(void* dst, const void* src, unsigned bytes, unsigned filled) {
  Fibre& f = self();
  if (reinterpret_cast<uintptr_t>(dst) % bytes != 0 ||
      (filled > 0 && reinterpret_cast<uintptr_t>(src) % bytes != 0))
    fail(f, "copies " + std::to_string(bytes) + " bytes from or to an address not aligned to them");
  const Copy copy{dst, src, bytes, filled};
  if (happens_at_once(run_of(f)))
    perform(copy);
  else
    f.open.push_back(copy);
}
void commit_copies() {
  self().groups.push_back(std::move(self().open));
  self().open.clear();
}
void wait_for_copies(unsigned groups_left, const Where& where) {
  Fibre& f = self();
  if (faulty(SyncSite::kCopyWait, where)) return;
  while (f.groups.size() > groups_left) {
    for (const Copy& copy : f.groups.front()) perform(copy);
    f.groups.erase(f.groups.begin());
  }
}

// ---- mbarriers

namespace {
PhaseBarrier& phase_barrier(Run& run, const void* at) {
  const auto found = run.phase_barriers.find(at);
  if (found == run.phase_barriers.end()) fail(self(), "uses an mbarrier that was not initialised");
  return found->second;
}

void end_phase_if_complete(PhaseBarrier& barrier) {
  if (barrier.pending > 0 || barrier.bytes != 0) return;
  barrier.pending = barrier.wanted;
  barrier.phase = !barrier.phase;
  for (Fibre* f : barrier.waiting) set_ready(*f);
  barrier.waiting.clear();
}
}  // namespace

void mbarrier_init(const void* barrier, unsigned arrivals) {
  Fibre& f = self();
  if (reinterpret_cast<uintptr_t>(barrier) % 8 != 0)
    fail(f, "initialises an mbarrier that is not aligned to 8 bytes");
  if (arrivals < 1 || arrivals > (1u << 20) - 1)
    fail(f, "initialises an mbarrier for " + std::to_string(arrivals) + " arrivals");
  PhaseBarrier made;
  made.wanted = made.pending = arrivals;
  if (!run_of(f).phase_barriers.emplace(barrier, made).second)
    fail(f, "initialises an mbarrier twice");
}

void mbarrier_arrive(const void* at, unsigned bytes_expected, const Where& where) {
  Fibre& f = self();
  if (faulty(SyncSite::kBarrier, where)) return;
  PhaseBarrier& barrier = phase_barrier(run_of(f), at);
  if (barrier.pending == 0) fail(f, "arrives at an mbarrier once more than it was made for");
  barrier.bytes += bytes_expected;
  --barrier.pending;
  end_phase_if_complete(barrier);
}

void mbarrier_wait(const void* at, unsigned parity, const Where& where) {
  Fibre& f = self();
  if (faulty(SyncSite::kBarrier, where)) return;
  PhaseBarrier& barrier = phase_barrier(run_of(f), at);
  f.operation = "mbarrier_wait";
  f.where = where;
  while (barrier.phase == (parity % 2 != 0)) {
    barrier.waiting.push_back(&f);
    wait(f, State::kAtPhase);
  }
}

// ---- bulk copies

namespace {
/// Where the 128-byte permutation puts byte `offset` of shared memory: the 16-byte piece within a
/// row of 128 bytes, by the row's number within its 1024.
uint32_t permuted(uint32_t offset) { return offset ^ (offset >> 7 & 7) << 4; }
}  // namespace

uint32_t shared_offset(const void* p) {
  Fibre& f = self();
  const auto& memory = run_of(f).shared[0];
  const auto offset =
      reinterpret_cast<uintptr_t>(p) - reinterpret_cast<uintptr_t>(memory.memory.get());
  if (offset >= memory.bytes) fail(f, "names memory that is not the launch's shared memory");
  return static_cast<uint32_t>(offset);
}

void copy_box(
    void* shared, const BoxMap& map, int column, int head, int token, const void* barrier) {
  Fibre& f = self();
  Run& run = run_of(f);
  const uint32_t to = shared_offset(shared);
  if (to % 1024 != 0) fail(f, "copies a box to shared memory that is not aligned to 1024 bytes");
  if (to + size_t{128} * map.box_rows > run.shared[0].bytes)
    fail(f, "copies a box beyond the shared memory");
  PhaseBarrier& counts = phase_barrier(run, barrier);
  auto work = [&run, &counts, map, to, column, head, token] {
    auto* memory = static_cast<char*>(run.shared[0].memory.get());
    const auto* from = static_cast<const uint16_t*>(map.base);
    for (int r = 0; r < map.box_rows; ++r)
      for (int c = 0; c < 64; ++c) {
        const int64_t row = int64_t{token} + r;
        const bool there = column + c >= 0 && column + c < map.dim && head >= 0 &&
                           head < map.heads && row >= 0 && row < map.tokens;
        const uint16_t value =
            there ? from[(row * map.heads + head) * map.dim + column + c] : uint16_t{0};
        std::memcpy(memory + permuted(to + r * 128u + c * 2u), &value, 2);
      }
    counts.bytes -= int64_t{128} * map.box_rows;
    end_phase_if_complete(counts);
  };
  if (happens_at_once(run))
    work();
  else
    run.under_way.push_back(std::move(work));
}

// ---- wgmma

namespace {
/// A matrix in shared memory as a descriptor of sm_90 tells it.
struct Matrix {
  const Run& run;
  uint32_t start, leading, stride;

  Matrix(const Run& run, uint64_t descriptor)
      : run(run),
        start((descriptor & 0x3fff) << 4),
        leading((descriptor >> 16 & 0x3fff) << 4),
        stride((descriptor >> 32 & 0x3fff) << 4) {
    if (descriptor >> 62 != 1 || (descriptor >> 49 & 7) != 0)
      throw LaunchError("wgmma: a descriptor of another layout than rows of 128 permuted bytes");
  }
  float at(uint32_t offset) const {
    offset = permuted(offset);
    if (offset + 2 > run.shared[0].bytes)
      throw LaunchError("wgmma: a descriptor reaches beyond the shared memory");
    uint16_t bits;
    std::memcpy(&bits, static_cast<const char*>(run.shared[0].memory.get()) + offset, 2);
    return std::bit_cast<float>(uint32_t{bits} << 16);
  }
  /// Element k of row r where k is contiguous: groups of eight rows, `stride` apart.
  float along(int r, int k) const { return at(start + r / 8 * stride + r % 8 * 128 + k * 2); }
  /// Element n of row k where n is contiguous: groups of eight k `stride` apart, and pieces of 64 n
  /// `leading` apart.
  float across(int k, int n) const {
    return at(start + n / 64 * leading + k / 8 * stride + k % 8 * 128 + n % 64 * 2);
  }
};

void perform(const Run& run, unsigned warp, const GroupProduct& p) {
  float a[16][16], b[256][16];
  if (p.a[0]) {
    for (int lane = 0; lane < 32; ++lane)
      for (int r = 0; r < 4; ++r) {
        const uint32_t w = p.a[lane][r];
        float* to = &a[lane / 4 + r % 2 * 8][lane % 4 * 2 + r / 2 * 8];
        to[0] = std::bit_cast<float>(w << 16);
        to[1] = std::bit_cast<float>(w & 0xffff0000u);
      }
  } else {
    const Matrix from(run, p.a_descriptor);
    const int first = static_cast<int>(warp % 4 * 16);
    for (int m = 0; m < 16; ++m)
      for (int k = 0; k < 16; ++k) a[m][k] = from.along(first + m, k);
  }
  const Matrix from(run, p.b_descriptor);
  for (int n = 0; n < p.n; ++n)
    for (int k = 0; k < 16; ++k) b[n][k] = p.b_rows_across ? from.across(k, n) : from.along(n, k);
  for (int lane = 0; lane < 32; ++lane)
    for (int i = 0; i < p.n / 2; ++i) {
      const int m = lane / 4 + i % 4 / 2 * 8, n = i / 4 * 8 + lane % 4 * 2 + i % 2;
      float sum = p.accumulate ? p.d[lane][i] : 0.0f;
      for (int k = 0; k < 16; ++k) sum += a[m][k] * b[n][k];
      p.d[lane][i] = sum;
    }
}

unsigned number_of(const Fibre& f) { return f.linear / 32; }

void perform_all(Run& run, unsigned warp) {
  Warp& w = run.warps[warp];
  for (const auto& group : w.product_groups)
    for (const auto& product : group) perform(run, warp, product);
  for (const auto& product : w.open_products) perform(run, warp, product);
  for (auto& group : w.product_groups) group.clear();
  w.open_products.clear();
}
}  // namespace

void issue_product(const GroupProduct& product) {
  Fibre& f = self();
  Run& run = run_of(f);
  Warp& warp = run.warps[number_of(f)];
  if (!warp.fenced) fail(f, "multiplies (wgmma) without a wgmma_fence since its last wait");
  if (run.fibres.size() < number_of(f) / 4 * 128 + 128)
    fail(f, "multiplies (wgmma) in a warp group that is not whole");
  warp.open_products.push_back(product);
  if (happens_at_once(run)) perform_all(run, number_of(f));
}
void fence_products() { run_of(self()).warps[number_of(self())].fenced = true; }
void commit_products() {
  Warp& warp = run_of(self()).warps[number_of(self())];
  warp.product_groups.push_back(std::move(warp.open_products));
  warp.open_products.clear();
}
void wait_for_products(unsigned groups_left) {
  Fibre& f = self();
  Run& run = run_of(f);
  Warp& warp = run.warps[number_of(f)];
  while (warp.product_groups.size() > groups_left) {
    for (const auto& product : warp.product_groups.front()) perform(run, number_of(f), product);
    warp.product_groups.pop_front();
  }
  warp.fenced = false;
}

}  // namespace cohort::kernels::host
