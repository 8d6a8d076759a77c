// What a launch on the host is made of: for the files of this folder alone.
#pragma once
#include <boost/context/detail/fcontext.hpp>
#include <deque>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <new>

#include "kernels/cuda/host/execution.h"

namespace cohort::kernels::host {

inline constexpr unsigned kBarriers = 16;

/// Bytes that an asynchronous copy of one thread will move.
struct Copy {
  void* dst;
  const void* src;
  unsigned bytes, filled;
};

enum class State { kReady, kAtBarrier, kAtWarpOp, kAtPhase, kEnded };

struct Fibre : Thread {
  boost::context::detail::fcontext_t context = nullptr;
  void* fake_stack = nullptr;
  char* stack = nullptr;
  unsigned linear = 0;
  State state = State::kReady;
  // What it waits at.
  const char* operation = "";
  Where where;
  unsigned mask = 0;  // of a warp intrinsic, or number of a barrier
  int barrier_result = 0;
  std::vector<std::vector<Copy>> groups;  // committed, oldest first
  std::vector<Copy> open;                 // not yet committed
};

/// A warp intrinsic that lanes have come to.
struct WarpOp {
  const char* name;
  unsigned mask, arrived;
  void* arguments[32];
};
struct Warp {
  unsigned ready = 0, ended = 0, lanes = 0;
  std::vector<WarpOp> open;
  // Of wgmma: products not yet done, by group, and those not yet in one.
  std::deque<std::vector<GroupProduct>> product_groups;
  std::vector<GroupProduct> open_products;
  bool fenced = false;
};
struct Barrier {
  unsigned wanted = 0;
  int predicates = 0;
  std::vector<Fibre*> waiting;
};
/// An mbarrier: a phase ends when as many have arrived as it was made for and all bytes are there.
struct PhaseBarrier {
  unsigned wanted = 0, pending = 0;
  int64_t bytes = 0;  ///< Expected and not yet there; below zero when they come before the word.
  bool phase = false;
  std::vector<Fibre*> waiting;
};

struct FreeAligned {
  size_t alignment;
  void operator()(void* p) const { ::operator delete (p, std::align_val_t{alignment}); }
};
struct SharedVariable {
  const void* tag;
  size_t bytes;
  std::unique_ptr<void, FreeAligned> memory;
};

struct Run : Block {
  const LaunchShape* shape = nullptr;
  void (*body)(void*) = nullptr;
  void* closure = nullptr;
  std::vector<Fibre> fibres;
  std::vector<Warp> warps;
  Barrier barriers[kBarriers];
  std::map<const void*, PhaseBarrier> phase_barriers;
  std::vector<std::function<void()>> under_way;  // bulk copies, oldest first
  std::vector<SharedVariable> shared;            // [0] is the dynamic part
  size_t shared_bytes = 0;
  std::exception_ptr error;
  boost::context::detail::fcontext_t scheduler = nullptr;
  void* scheduler_fake_stack = nullptr;
  const void* scheduler_bottom = nullptr;
  size_t scheduler_bytes = 0;
  uint64_t random = 0;
};

inline Fibre& self() { return *static_cast<Fibre*>(current); }
inline Run& run_of(Thread& thread) { return *static_cast<Run*>(thread.block); }

/// Throws LaunchError: "kernel ..., block ..., thread ... <what>".
[[noreturn]] void fail(const Fibre& f, const std::string& what);
/// Notes the site; true if a fault is planted in it.
bool faulty(SyncSite::Kind kind, const Where& where);
/// Gives the processor back until someone calls set_ready.
void wait(Fibre& f, State state);
void set_ready(Fibre& f);
/// Whether what the device does behind the threads' backs is done at once, by the order in use.
bool happens_at_once(Run& run);
/// One of the bulk copies under way, by the order in use.
void end_one_copy(Run& run);
uint64_t next_random(uint64_t& state);
Order order_in_use();

}  // namespace cohort::kernels::host
