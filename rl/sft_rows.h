// Examples packed into rows, and rows into what a forward pass reads.
#pragma once
#include <ATen/ATen.h>

#include <cstdint>
#include <span>
#include <vector>

#include "core/config/config.h"
#include "core/data/mixture.h"
#include "core/nn/attention.h"
#include "rl/sft_data.h"

namespace cohort::rl {

struct ExampleRef {
  int32_t file = 0;
  int64_t index = 0;
  friend bool operator==(const ExampleRef&, const ExampleRef&) = default;
};

/// Examples whose tokens are at most seq_len together.
struct PackedRow {
  std::vector<ExampleRef> examples;
  int64_t tokens = 0;
  friend bool operator==(const PackedRow&, const PackedRow&) = default;
};

/// First fit in a bounded window: an example goes into the first of up to 64 open rows that has
/// room; beyond these the oldest is closed; a full row closes at once. Every example is in one row.
std::vector<PackedRow> pack_rows(const std::vector<SftFile>& files,
                                 std::span<const ExampleRef> examples,
                                 int64_t seq_len);
/// A file's examples in its order.
std::vector<PackedRow> pack_rows(const std::vector<SftFile>& files, int64_t seq_len);

/// The rows of a run, epoch after epoch: row i is a function of the examples, their weights, the
/// seed and i. An epoch is as many examples as all files hold; with one file it is each of them
/// once, in an order drawn from (seed, epoch). Of several files each gives its share of examples by
/// weight and goes through its own in such orders. No row holds examples of two epochs.
class SftRows {
 public:
  /// `files` outlives it; as many weights, each above 0.
  SftRows(const std::vector<SftFile>& files,
          const std::vector<double>& weights,
          int64_t seq_len,
          uint64_t seed);

  /// Rows first .. first + count - 1. Cheap in ascending order; else epochs are packed anew.
  std::vector<PackedRow> rows(int64_t first, int64_t count);
  /// Examples of an epoch.
  int64_t epoch_size() const { return epoch_size_; }
  /// Rows of the first `epochs` epochs; of a part of an epoch that part of its rows, rounded up.
  int64_t num_rows(double epochs);

 private:
  std::vector<ExampleRef> epoch_order(int64_t epoch) const;
  const std::vector<PackedRow>& epoch_rows(int64_t epoch);

  const std::vector<SftFile>& files_;
  core::Mixture mixture_;
  int64_t seq_len_;
  uint64_t seed_;
  int64_t epoch_size_ = 0;
  std::vector<int64_t> epoch_begin_{0};  ///< First row of each epoch packed so far, and the next.
  int64_t packed_epoch_ = -1;
  std::vector<PackedRow> packed_;
};

/// Examples laid end to end in one row of T inputs, without padding: of each its tokens but the
/// last. An example sees itself alone, from position 0.
struct SftBatch {
  at::Tensor input_ids;  ///< int64 [1, T]
  core::AttentionLayout layout;
  /// Depth k = 0, 1, ...: int64 [T_k], in the order of Transformer's outputs of that depth; -1
  /// where the token predicted is not trained.
  std::vector<at::Tensor> targets;
  /// Depth 0's targets of which a teacher told its likeliest tokens: int64 [R], their places in
  /// ascending order; int32 [R, K], -1 after a row's last; fp32 [R, K]. Undefined when there are
  /// none.
  at::Tensor teacher_rows, top_tokens, top_log_probs;
};

/// `depths`: of multi-token prediction; 0: the next token only.
SftBatch make_sft_batch(const std::vector<SftFile>& files,
                        std::span<const PackedRow> rows,
                        int64_t depths);

/// What there is in rows of a global batch, whoever holds them.
struct RowCounts {
  int64_t examples = 0, tokens = 0;
  std::vector<int64_t> targets;  ///< Of each depth.
  int64_t teacher = 0;           ///< Of depth 0's targets those of which a teacher told.
};
RowCounts count_rows(const std::vector<SftFile>& files,
                     std::span<const PackedRow> rows,
                     int64_t depths);

}  // namespace cohort::rl
