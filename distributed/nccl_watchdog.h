// The thread that watches the NCCL communicators of a process. A kernel of NCCL whose peer is gone
// runs for ever, and the host may be waiting for it inside the CUDA runtime: only another thread
// can end it, by aborting the communicator.
#pragma once
#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "distributed/collective_watch.h"
#include "distributed/nccl_calls.h"

namespace cohort::distributed {

/// A communicator of NCCL as both threads see it. Calls on it are made under the mutex; they are
/// short because communicators do not block.
struct NcclLink {
  std::mutex mutex;
  void* comm = nullptr;
  bool aborted = false;
  Operation last{"nothing", "", 0, 0};  ///< Begun last; for errors between operations.
};

class NcclWatchdog {
 public:
  struct Options {
    double look_every_s = 0.1;
    double grace_s = 15;  ///< From a failure until somebody must have called check().
    /// What then happens, with the failure's message. Empty: the message is printed and the whole
    /// job is ended.
    std::function<void(const std::string&)> unheard;
  };

  NcclWatchdog(NcclCalls calls, Options options);
  explicit NcclWatchdog(NcclCalls calls) : NcclWatchdog(std::move(calls), Options()) {}
  ~NcclWatchdog();

  const NcclCalls& calls() const { return calls_; }

  void enlist(std::shared_ptr<NcclLink> link);
  /// For the link's owner, who ends the communicator himself. False after a failure: then the
  /// watchdog has aborted it or is about to.
  bool withdraw(const std::shared_ptr<NcclLink>& link);
  void add(const NcclLink* link, Operation operation, CollectiveWatch::Probe probe);

  /// Throws Error with the first failure's message once there was one: any stuck or failed
  /// collective of this process.
  void check();
  /// Records the failure, if it is the first, and aborts all communicators of this process.
  void fail(const std::string& message);
  /// Waits until all operations of `link` are done; throws as check() does.
  void drain(const NcclLink* link);

 private:
  void run();
  void look();  ///< With mutex_ held, as for the next one.
  void fail_locked(const std::string& message);
  void poll_links();

  const NcclCalls calls_;
  const Options options_;
  std::mutex mutex_;
  std::condition_variable wake_;
  CollectiveWatch watch_;
  std::vector<std::shared_ptr<NcclLink>> links_;
  std::string failure_;
  double failed_at_ = 0;
  bool heard_ = false, told_ = false, stopping_ = false;
  std::shared_ptr<std::atomic<bool>> aborted_;  ///< Once there was a failure.
  std::thread aborter_, thread_;
};

}  // namespace cohort::distributed
