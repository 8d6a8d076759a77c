// The two pieces of work that run beside training: each rank's shards, and rank 0's commit. Neither
// communicates.
#pragma once
#include "distributed/checkpoint.h"
#include "distributed/checkpoint_manifest.h"

#include <string>
#include <vector>

namespace cohort::distributed {

/// How one rank's writing went, as it travels to rank 0.
struct ShardReport {
  std::string manifest, error;

  std::string text() const { return error.empty() ? "+" + manifest : "-" + error; }
};

/// Writes a rank's shards (and `content.files`) into `folder`, made when missing, and fsyncs them.
/// Returns its part of the manifest as text. Throws Error with file and reason.
std::string write_shards(const std::string& folder, CheckpointContent content, int rank, int ranks);

class CheckpointCommit {
 public:
  CheckpointCommit(std::string folder, int64_t keep) : folder_(std::move(folder)), keep_(keep) {}

  /// What goes into the next manifest.
  void prepare(int64_t step, nlohmann::json mesh, nlohmann::json state);
  /// Makes a checkpoint of what the ranks wrote, then deletes older ones. Throws Error, after
  /// removing the temporary folder, when a rank failed or this does.
  void run(const std::vector<std::string>& reports);

 private:
  Manifest collect(const std::vector<std::string>& reports) const;
  void check_present(const std::string& folder, const Manifest& manifest) const;
  void delete_older();

  std::string folder_;
  int64_t keep_;
  Manifest next_;
  std::vector<int64_t> committed_;  ///< Steps, in the order in which this run wrote them.
};

}  // namespace cohort::distributed
