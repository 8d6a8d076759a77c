// Notices collectives that are stuck or have failed, and names them. Knows nothing of NCCL, threads
// or clocks: who owns it asks it now and then, and tells it the time.
#pragma once
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "distributed/operation.h"

namespace cohort::distributed {

enum class Progress {
  kQueued,   ///< Waits for its inputs, or for an operation before it: its time does not count.
  kRunning,  ///< Has begun on this rank.
  kDone,
};

/// "all_reduce number 7 on axis ep has taken its rank 2 more than 600 s ...".
std::string late_message(const Operation& operation, double limit);
/// "all_reduce number 7 on axis ep failed on its rank 2: `reason`".
std::string failed_message(const Operation& operation, const std::string& reason);

class CollectiveWatch {
 public:
  /// Throws Error with the library's words when the operation cannot be asked after any more.
  using Probe = std::function<Progress()>;

  /// `communicator` tells communicators apart; their operations come in the order of their start.
  void add(const void* communicator, Operation operation, Probe probe);

  /// Forgets what is done. Returns the message of the operation that has run longest when that is
  /// more than `limit` seconds (0: for ever), or of one whose probe threw. `now` is in seconds.
  std::optional<std::string> poll(double now, double limit);

  /// The message for an error that a communicator reports without saying where: it names the
  /// operation that is under way there, or else `next`, which would have followed.
  std::string fault(const void* communicator,
                    const Operation& next,
                    const std::string& reason) const;

  /// Operations of a communicator that were not yet done when last asked.
  size_t under_way(const void* communicator) const;
  void forget(const void* communicator);

 private:
  struct Entry {
    const void* communicator;
    Operation operation;
    Probe probe;
    std::optional<double> began;  ///< When it was first seen running.
  };
  std::vector<Entry> entries_;
};

}  // namespace cohort::distributed
