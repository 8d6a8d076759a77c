#include "distributed/collective_watch.h"

#include <algorithm>

#include "core/base/error.h"

namespace cohort::distributed {

std::string late_message(const Operation& operation, double limit) {
  return fmt::format(
      "{} number {} on axis {} has taken its rank {} more than {:g} s (run.timeout_s)",
      operation.name,
      operation.sequence,
      operation.axis,
      operation.rank,
      limit);
}

std::string failed_message(const Operation& operation, const std::string& reason) {
  return fmt::format("{} number {} on axis {} failed on its rank {}: {}",
                     operation.name,
                     operation.sequence,
                     operation.axis,
                     operation.rank,
                     reason);
}

void CollectiveWatch::add(const void* communicator, Operation operation, Probe probe) {
  entries_.push_back({communicator, std::move(operation), std::move(probe), {}});
}

std::optional<std::string> CollectiveWatch::poll(double now, double limit) {
  std::optional<std::string> failure;
  const Entry* longest = nullptr;
  std::vector<Entry> kept;
  kept.reserve(entries_.size());
  for (Entry& entry : entries_) {
    Progress progress = Progress::kRunning;
    try {
      progress = entry.probe();
    } catch (const Error& error) {
      if (!failure) failure = failed_message(entry.operation, error.what());
    }
    if (progress == Progress::kDone) continue;
    if (progress == Progress::kRunning && !entry.began) entry.began = now;
    kept.push_back(std::move(entry));
  }
  entries_ = std::move(kept);
  if (failure || limit <= 0) return failure;
  for (const Entry& entry : entries_) {
    if (!entry.began || now - *entry.began <= limit) continue;
    if (!longest || *entry.began < *longest->began) longest = &entry;
  }
  if (longest) return late_message(longest->operation, limit);
  return {};
}

std::string CollectiveWatch::fault(const void* communicator,
                                   const Operation& next,
                                   const std::string& reason) const {
  for (const Entry& entry : entries_)
    if (entry.communicator == communicator) return failed_message(entry.operation, reason);
  return failed_message(next, reason);
}

size_t CollectiveWatch::under_way(const void* communicator) const {
  return std::count_if(entries_.begin(), entries_.end(), [&](const Entry& entry) {
    return entry.communicator == communicator;
  });
}

void CollectiveWatch::forget(const void* communicator) {
  std::erase_if(entries_, [&](const Entry& entry) { return entry.communicator == communicator; });
}

}  // namespace cohort::distributed
