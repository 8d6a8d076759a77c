// The scheduler of a block: one fibre a thread, taken up again while any can run. A thread runs
// until it synchronises; the last to come to a barrier or warp intrinsic wakes the others and goes
// on. When none can run and not all have ended, that is a deadlock, and whom the first waits for is
// told.
#include "kernels/cuda/host/execution.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstring>
#include <numeric>

#include "kernels/cuda/host/run.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace cohort::kernels::host {

namespace {

namespace context = boost::context::detail;

constexpr size_t kStackBytes = 256 << 10;
constexpr size_t kSharedLimit = 227 << 10;  // of a block on sm_90; sm_80 has 163 KB
constexpr int kPoison = 0xff;               // NaN as fp32, bf16 and half, -1 as an integer

// What to tell AddressSanitizer of a switch; nothing without it.
#if defined(__SANITIZE_ADDRESS__)
void leave(void** fake_stack, const void* bottom, size_t bytes) {
  __sanitizer_start_switch_fiber(fake_stack, bottom, bytes);
}
void arrive(void* fake_stack, const void** bottom, size_t* bytes) {
  __sanitizer_finish_switch_fiber(fake_stack, bottom, bytes);
}
void forget(void* memory, size_t bytes) { __asan_unpoison_memory_region(memory, bytes); }
#else
void leave(void**, const void*, size_t) {}
void arrive(void*, const void**, size_t*) {}
void forget(void*, size_t) {}
#endif

/// Stacks of an OS thread, kept between launches: pages are touched when used first.
class Stacks {
 public:
  ~Stacks() {
    for (char* stack : stacks_) munmap(stack, kStackBytes);
  }
  /// Lowest usable address of stack i; below it lies a page that faults.
  char* at(size_t i) {
    while (stacks_.size() <= i) {
      void* memory = mmap(nullptr,
                          kStackBytes,
                          PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                          -1,
                          0);
      if (memory == MAP_FAILED) throw std::bad_alloc();
      stacks_.push_back(static_cast<char*>(memory));
      mprotect(memory, guard(), PROT_NONE);
    }
    return stacks_[i] + guard();
  }
  static size_t usable() { return kStackBytes - guard(); }

 private:
  static size_t guard() {
    static const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    return page;
  }
  std::vector<char*> stacks_;
};

thread_local Schedule schedule_in_use;
thread_local std::vector<SyncSite>* recording = nullptr;
thread_local const SyncSite* planted = nullptr;

SharedVariable allocate(const void* tag, size_t bytes, size_t alignment) {
  return {tag,
          bytes,
          {::operator new (std::max<size_t>(bytes, 1), std::align_val_t{alignment}), {alignment}}};
}

std::string name_of(const uint3& i) {
  return "(" + std::to_string(i.x) + "," + std::to_string(i.y) + "," + std::to_string(i.z) + ")";
}
std::string base_name(const char* file) {
  const char* slash = std::strrchr(file, '/');
  return slash ? slash + 1 : file;
}
std::string hex(unsigned mask) {
  char text[16];
  std::snprintf(text, sizeof text, "0x%08x", mask);
  return text;
}
std::string place_of(const Fibre& f) {
  std::string text = f.operation;
  if (f.state == State::kAtWarpOp) text += "(mask " + hex(f.mask) + ")";
  return text + ", " + base_name(f.where.file_name()) + ":" + std::to_string(f.where.line());
}

void enter(context::transfer_t from) {
  auto& f = *static_cast<Fibre*>(from.data);
  Run& run = run_of(f);
  run.scheduler = from.fctx;
  arrive(nullptr, &run.scheduler_bottom, &run.scheduler_bytes);
  try {
    run.body(run.closure);
  } catch (...) {
    if (!run.error) run.error = std::current_exception();
  }
  f.state = State::kEnded;
  Warp& warp = run.warps[f.linear / 32];
  warp.ready &= ~(1u << f.lane);
  warp.ended |= 1u << f.lane;
  leave(nullptr, run.scheduler_bottom, run.scheduler_bytes);
  context::jump_fcontext(run.scheduler, nullptr);
}

void resume(Fibre& f) {
  Run& run = run_of(f);
  current = &f;
  leave(&run.scheduler_fake_stack, f.stack, Stacks::usable());
  f.context = context::jump_fcontext(f.context, &f).fctx;
  arrive(run.scheduler_fake_stack, nullptr, nullptr);
  current = nullptr;
}

unsigned pick_bit(unsigned set, Order order, uint64_t& random) {
  if (order == Order::kInOrder) return std::countr_zero(set);
  if (order == Order::kReversed) return 31 - std::countl_zero(set);
  for (auto skip = next_random(random) % std::popcount(set); skip > 0; --skip) set &= set - 1;
  return std::countr_zero(set);
}

unsigned ready_warps(const Run& run) {
  unsigned ready = 0;
  for (size_t w = 0; w < run.warps.size(); ++w) ready |= (run.warps[w].ready != 0) << w;
  return ready;
}
bool all_ended(const Run& run) {
  return std::all_of(
      run.warps.begin(), run.warps.end(), [](const Warp& w) { return w.ended == w.lanes; });
}

/// The next thread to run, null when none can. Copies end when no thread can run, or by chance.
Fibre* pick(Run& run) {
  if (!run.under_way.empty() && order_in_use() == Order::kRandom &&
      next_random(run.random) % 64 == 0)
    end_one_copy(run);
  unsigned ready = ready_warps(run);
  while (!ready && !run.under_way.empty() && !all_ended(run)) {
    end_one_copy(run);
    ready = ready_warps(run);
  }
  if (!ready) return nullptr;
  const Order order = schedule_in_use.order;
  const unsigned warp = pick_bit(ready, order, run.random);
  return &run.fibres[warp * 32 + pick_bit(run.warps[warp].ready, order, run.random)];
}

std::string why_absent(const Fibre& f) {
  return "thread " + name_of(f.index) +
         (f.state == State::kEnded ? ", which has ended" : ", which waits at " + place_of(f));
}

/// Nobody can run: tells what the first that waits waits for.
[[noreturn]] void report_deadlock(Run& run) {
  for (Fibre& f : run.fibres) {
    if (f.state == State::kAtBarrier)
      for (const Fibre& other : run.fibres)
        if (other.state != State::kAtBarrier || other.mask != f.mask)
          fail(f, "waits at " + place_of(f) + " for " + why_absent(other));
    if (f.state == State::kAtWarpOp)
      for (unsigned lane = 0; lane < 32; ++lane) {
        if (!(f.mask >> lane & 1)) continue;
        const Fibre& other = run.fibres[f.linear / 32 * 32 + lane];
        if (other.state != State::kAtWarpOp || other.mask != f.mask ||
            std::strcmp(other.operation, f.operation) != 0)
          fail(f, "waits at " + place_of(f) + " for " + why_absent(other));
      }
  }
  for (Fibre& f : run.fibres) {
    if (f.state == State::kAtBarrier)
      fail(f, "waits at " + place_of(f) + " for more threads than the block has");
    if (f.state == State::kAtPhase)
      fail(f, "waits at " + place_of(f) + " for a phase that nothing will end");
  }
  throw LaunchError("a block can go on no more");
}

void run_block(Run& run, Stacks& stacks) {
  const unsigned count = run.threads.x * run.threads.y * run.threads.z;
  for (auto& variable : run.shared) std::memset(variable.memory.get(), kPoison, variable.bytes);
  for (auto& barrier : run.barriers) barrier = {};
  run.phase_barriers.clear();
  run.under_way.clear();
  for (unsigned w = 0; w < run.warps.size(); ++w) {
    const unsigned lanes = std::min(32u, count - w * 32);
    const unsigned all = lanes == 32 ? ~0u : (1u << lanes) - 1;
    run.warps[w].ready = run.warps[w].lanes = all;
    run.warps[w].ended = 0;
    run.warps[w].open.clear();
    run.warps[w].product_groups.clear();
    run.warps[w].open_products.clear();
    run.warps[w].fenced = false;
  }
  for (unsigned i = 0; i < count; ++i) {
    Fibre& f = run.fibres[i];
    f.state = State::kReady;
    f.fake_stack = nullptr;
    f.groups.clear();
    f.open.clear();
    forget(f.stack, Stacks::usable());
    f.context = context::make_fcontext(f.stack + Stacks::usable(), Stacks::usable(), enter);
  }
  while (Fibre* f = pick(run)) {
    resume(*f);
    if (run.error) std::rethrow_exception(run.error);
  }
  for (const Fibre& f : run.fibres)
    if (f.state != State::kEnded) report_deadlock(run);
  if (!run.under_way.empty())
    fail(run.fibres[0], "and all others end while bulk copies to their memory are under way");
}

void check_shape(const LaunchShape& s) {
  const uint64_t threads = uint64_t{s.threads.x} * s.threads.y * s.threads.z;
  const char* fault = threads == 0 || threads > 1024 ? "1 to 1024 threads a block"
                      : s.threads.z > 64             ? "at most 64 threads along z"
                      : s.blocks.x == 0 || s.blocks.y == 0 || s.blocks.z == 0 ? "at least one block"
                      : s.blocks.x > 0x7fffffffu || s.blocks.y > 65535 || s.blocks.z > 65535
                          ? "a grid of at most 2^31-1 x 65535 x 65535"
                      : s.shared_bytes > kSharedLimit ? "at most 227 KB of shared memory"
                                                      : nullptr;
  if (fault)
    throw LaunchError("kernel launched by " + std::string(s.caller) + ": a device wants " + fault +
                      "; asked for " + name_of({s.blocks.x, s.blocks.y, s.blocks.z}) +
                      " blocks of " + name_of({s.threads.x, s.threads.y, s.threads.z}) +
                      " threads, " + std::to_string(s.shared_bytes) + " shared bytes");
}

}  // namespace

constinit thread_local Thread* current = nullptr;

uint64_t next_random(uint64_t& state) {
  uint64_t z = state += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}
Order order_in_use() { return schedule_in_use.order; }

void fail(const Fibre& f, const std::string& what) {
  const Run& run = *static_cast<const Run*>(f.block);
  throw LaunchError("kernel launched by " + std::string(run.shape->caller) + " (" +
                    base_name(run.shape->file) + ":" + std::to_string(run.shape->line) +
                    "): block " + name_of(run.index) + ", thread " + name_of(f.index) + " " + what);
}

bool faulty(SyncSite::Kind kind, const Where& where) {
  const int line = where.line();
  if (recording) {
    const SyncSite site{kind, where.file_name(), line};
    if (std::find(recording->begin(), recording->end(), site) == recording->end())
      recording->push_back(site);
  }
  return planted && planted->line == line && planted->kind == kind &&
         planted->file == where.file_name();
}

void set_ready(Fibre& f) {
  f.state = State::kReady;
  run_of(f).warps[f.linear / 32].ready |= 1u << f.lane;
}

void wait(Fibre& f, State state) {
  Run& run = run_of(f);
  f.state = state;
  run.warps[f.linear / 32].ready &= ~(1u << f.lane);
  leave(&f.fake_stack, run.scheduler_bottom, run.scheduler_bytes);
  run.scheduler = context::jump_fcontext(run.scheduler, nullptr).fctx;
  arrive(f.fake_stack, &run.scheduler_bottom, &run.scheduler_bytes);
}

UseSchedule::UseSchedule(Schedule schedule) : before_(schedule_in_use) {
  schedule_in_use = schedule;
}
UseSchedule::~UseSchedule() { schedule_in_use = before_; }

std::vector<SyncSite> sync_sites(const std::function<void()>& work) {
  std::vector<SyncSite> sites;
  recording = &sites;
  try {
    work();
  } catch (...) {
    recording = nullptr;
    throw;
  }
  recording = nullptr;
  return sites;
}

PlantFault::PlantFault(SyncSite site) { planted = new SyncSite(std::move(site)); }
PlantFault::~PlantFault() {
  delete planted;
  planted = nullptr;
}

int block_barrier(
    unsigned id, unsigned threads, bool predicate, const char* name, const Where& where) {
  Fibre& f = self();
  Run& run = run_of(f);
  if (faulty(SyncSite::kBarrier, where)) return predicate;
  f.operation = name;
  f.where = where;
  f.mask = id;
  if (id >= kBarriers) fail(f, "names barrier " + std::to_string(id) + " of 16");
  const auto all = static_cast<unsigned>(run.fibres.size());
  if (threads > all || threads % 32 != 0)
    fail(
        f,
        "wants " + std::to_string(threads) + " threads at a barrier: not whole warps of the block");
  Barrier& barrier = run.barriers[id];
  const unsigned wanted = threads ? threads : all;
  if (!barrier.waiting.empty() && barrier.wanted != wanted)
    fail(f,
         "wants " + std::to_string(wanted) + " threads at barrier " + std::to_string(id) +
             ", those before it " + std::to_string(barrier.wanted));
  barrier.wanted = wanted;
  barrier.predicates += predicate;
  if (barrier.waiting.size() + 1 < wanted) {
    barrier.waiting.push_back(&f);
    wait(f, State::kAtBarrier);
    return f.barrier_result;
  }
  const int result = barrier.predicates;
  for (Fibre* other : barrier.waiting) {
    other->barrier_result = result;
    set_ready(*other);
  }
  barrier.waiting.clear();
  barrier.predicates = 0;
  return result;
}

void warp_collective(
    const char* name, unsigned mask, void* arguments, Finish finish, const Where& where) {
  Fibre& f = self();
  Warp& warp = run_of(f).warps[f.linear / 32];
  if (faulty(SyncSite::kWarp, where)) {
    if (!arguments) return;
    mask &= mask - 1;
  }
  const std::string call = "calls ";
  f.operation = name;
  f.where = where;
  f.mask = mask;
  const auto here = [&] {
    return call + name + "(mask " + hex(mask) + "), " + base_name(where.file_name()) + ":" +
           std::to_string(where.line());
  };
  if (!(mask >> f.lane & 1)) fail(f, here() + ", without being in the mask");
  if (mask & ~warp.lanes) fail(f, here() + ", but its warp has lanes " + hex(warp.lanes) + " only");
  if (mask & warp.ended) fail(f, here() + ", but lanes " + hex(mask & warp.ended) + " have ended");
  size_t i = 0;
  while (i < warp.open.size() &&
         !(warp.open[i].mask == mask && std::strcmp(warp.open[i].name, name) == 0)) {
    const WarpOp& other = warp.open[i];
    if ((other.mask >> f.lane & 1) && (mask & other.arrived))
      fail(f,
           here() + ", while lanes " + hex(other.arrived) + " wait for it at " + other.name +
               "(mask " + hex(other.mask) + ")");
    ++i;
  }
  if (i == warp.open.size()) warp.open.push_back({name, mask, 0, {}});
  WarpOp& op = warp.open[i];
  op.arrived |= 1u << f.lane;
  op.arguments[f.lane] = arguments;
  if (op.arrived != mask) {
    wait(f, State::kAtWarpOp);
    return;
  }
  finish(op.arguments, mask);
  warp.open.erase(warp.open.begin() + static_cast<std::ptrdiff_t>(i));
  Run& run = run_of(f);
  for (unsigned rest = mask & ~(1u << f.lane); rest; rest &= rest - 1)
    set_ready(run.fibres[f.linear / 32 * 32 + std::countr_zero(rest)]);
}

void* shared_variable(const void* tag, size_t bytes, size_t alignment) {
  Fibre& f = self();
  Run& run = run_of(f);
  for (auto& variable : run.shared)
    if (variable.tag == tag) return variable.memory.get();
  run.shared_bytes += bytes;
  if (run.shared_bytes > kSharedLimit)
    fail(f,
         "has " + std::to_string(run.shared_bytes) + " bytes of shared memory; a block has 227 KB");
  run.shared.push_back(allocate(tag, bytes, alignment));
  std::memset(run.shared.back().memory.get(), kPoison, bytes);
  return run.shared.back().memory.get();
}

void* dynamic_shared() { return run_of(self()).shared[0].memory.get(); }

void run_grid(const LaunchShape& shape, void (*body)(void*), void* closure) {
  if (current) throw LaunchError("a kernel launches a kernel");
  check_shape(shape);
  thread_local Stacks stacks;
  Run run;
  run.shape = &shape;
  run.body = body;
  run.closure = closure;
  run.threads = shape.threads;
  run.blocks = shape.blocks;
  run.random = schedule_in_use.seed;
  run.shared.push_back(allocate(nullptr, shape.shared_bytes, 1024));
  run.shared_bytes = shape.shared_bytes;
  const unsigned count = shape.threads.x * shape.threads.y * shape.threads.z;
  run.fibres.resize(count);
  run.warps.resize((count + 31) / 32);
  for (unsigned i = 0; i < count; ++i) {
    Fibre& f = run.fibres[i];
    f.index = {i % shape.threads.x,
               i / shape.threads.x % shape.threads.y,
               i / (shape.threads.x * shape.threads.y)};
    f.linear = i;
    f.lane = i % 32;
    f.block = &run;
    f.stack = stacks.at(i);
  }
  struct Reset {
    ~Reset() { current = nullptr; }
  } reset;
  const uint64_t blocks = uint64_t{shape.blocks.x} * shape.blocks.y * shape.blocks.z;
  // A random order of blocks: a walk by a step without a common divisor.
  uint64_t step = schedule_in_use.seed % blocks | 1;
  while (std::gcd(step, blocks) != 1) step += 2;
  for (uint64_t n = 0; n < blocks; ++n) {
    const Order order = schedule_in_use.order;
    const uint64_t b = order == Order::kInOrder    ? n
                       : order == Order::kReversed ? blocks - 1 - n
                                                   : n * step % blocks;
    run.index = {static_cast<unsigned>(b % shape.blocks.x),
                 static_cast<unsigned>(b / shape.blocks.x % shape.blocks.y),
                 static_cast<unsigned>(b / (uint64_t{shape.blocks.x} * shape.blocks.y))};
    run_block(run, stacks);
  }
}

}  // namespace cohort::kernels::host
