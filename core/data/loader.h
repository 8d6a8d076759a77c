// Batches whose content is a function of (seed, sample index) alone: not of the mesh, the
// micro-batch or a resume.
#pragma once
#include "core/config/config.h"
#include "core/data/batch.h"

#include <memory>
#include <string>
#include <vector>

namespace cohort::core {

/// What was read, for data_card.json and the log.
struct DataSourceInfo {
  std::string path;
  double weight;
  int64_t documents, tokens, bytes;
};

/// Training samples: rows of seq_len + 1 tokens from a weighted mixture of token sets, documents
/// shuffled anew each epoch. Sample `i` of a run is the same rows whatever the batch around it.
/// Thread safe after construction.
class TrainSampler {
 public:
  /// Throws InputError when a source is missing, broken, shorter than seq_len, or holds a token id
  /// >= vocab_size.
  TrainSampler(const DataConfig& config, uint64_t seed, int64_t vocab_size);
  ~TrainSampler();
  TrainSampler(TrainSampler&&) noexcept;

  /// Rows for samples [first, first + count). Step s of a run takes samples [s * global_batch, (s +
  /// 1) * global_batch).
  Batch rows(int64_t first, int64_t count) const;
  std::vector<DataSourceInfo> sources() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// The held-out set, read in order: row r holds tokens [r * S, r * S + S], so that every token but
/// each document's first is a target exactly once. The last row is padded: its padding tokens carry
/// document_id -1 and are never targets.
class ValidationSet {
 public:
  ValidationSet(const std::string& prefix, int64_t seq_len, int64_t vocab_size);
  ~ValidationSet();
  ValidationSet(ValidationSet&&) noexcept;

  int64_t num_rows() const;
  Batch rows(int64_t first, int64_t count) const;
  int64_t num_documents() const;
  int64_t num_tokens() const;
  /// UTF-8 bytes of the text. bits per byte = mean nats a target x targets / (ln 2 x bytes).
  int64_t num_bytes() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace cohort::core
