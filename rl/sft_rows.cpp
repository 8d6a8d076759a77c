#include "rl/sft_rows.h"

#include <algorithm>
#include <cmath>
#include <deque>

#include "core/base/error.h"
#include "core/base/rng.h"
#include "rl/permuted.h"

namespace cohort::rl {
namespace {

constexpr size_t kOpenRows = 64;

at::Tensor filled(const std::vector<int64_t>& values) {
  at::Tensor out = at::empty({static_cast<int64_t>(values.size())}, at::kLong);
  std::copy(values.begin(), values.end(), out.data_ptr<int64_t>());
  return out;
}

/// Collects what teachers told, row by row.
class TeacherRows {
 public:
  /// `first_place`: of the example's first target, that of its second token.
  void add(const SftFile& file, int64_t index, int64_t first_place) {
    const TeacherSpan& teacher = file.teacher(index);
    for (int64_t i = 0; i < teacher.count; ++i) {
      const int64_t token_idx = teacher.first + i;
      if (token_idx == 0) continue;  // nothing predicts it
      places_.push_back(first_place + token_idx - 1);
      sources_.push_back({&file, &teacher, i});
    }
    most_ = std::max(most_, teacher.count > 0 ? teacher.top : 0);
  }

  void fill(SftBatch& batch) const {
    if (places_.empty()) return;
    const auto rows = static_cast<int64_t>(places_.size());
    batch.teacher_rows = filled(places_);
    batch.top_tokens = at::full({rows, most_}, -1, at::kInt);
    batch.top_log_probs = at::zeros({rows, most_}, at::kFloat);
    for (int64_t row = 0; row < rows; ++row) {
      const auto& [file, teacher, i] = sources_[row];
      const auto tokens = file->top_tokens(*teacher).subspan(i * teacher->top, teacher->top);
      const auto probs = file->top_log_probs(*teacher).subspan(i * teacher->top, teacher->top);
      std::copy(tokens.begin(), tokens.end(), batch.top_tokens.data_ptr<int32_t>() + row * most_);
      std::copy(probs.begin(), probs.end(), batch.top_log_probs.data_ptr<float>() + row * most_);
    }
  }

 private:
  struct Source {
    const SftFile* file;
    const TeacherSpan* teacher;
    int64_t i;
  };
  std::vector<int64_t> places_;
  std::vector<Source> sources_;
  int64_t most_ = 0;
};

}  // namespace

std::vector<PackedRow> pack_rows(const std::vector<SftFile>& files,
                                 std::span<const ExampleRef> examples,
                                 int64_t seq_len) {
  std::vector<PackedRow> closed;
  std::deque<PackedRow> open;
  const auto close = [&](std::deque<PackedRow>::iterator row) {
    closed.push_back(std::move(*row));
    open.erase(row);
  };
  for (const ExampleRef& example : examples) {
    const int64_t length = files[example.file].length(example.index);
    auto row = std::find_if(open.begin(), open.end(), [&](const PackedRow& one) {
      return one.tokens + length <= seq_len;
    });
    if (row == open.end()) {
      if (open.size() == kOpenRows) close(open.begin());
      open.emplace_back();
      row = std::prev(open.end());
    }
    row->examples.push_back(example);
    row->tokens += length;
    if (row->tokens == seq_len) close(row);
  }
  while (!open.empty()) close(open.begin());
  return closed;
}

std::vector<PackedRow> pack_rows(const std::vector<SftFile>& files, int64_t seq_len) {
  std::vector<ExampleRef> examples;
  for (size_t file = 0; file < files.size(); ++file)
    for (int64_t i = 0; i < files[file].count(); ++i)
      examples.push_back({static_cast<int32_t>(file), i});
  return pack_rows(files, examples, seq_len);
}

SftRows::SftRows(const std::vector<SftFile>& files,
                 const std::vector<double>& weights,
                 int64_t seq_len,
                 uint64_t seed)
    : files_(files), mixture_(weights, seed), seq_len_(seq_len), seed_(seed) {
  for (const SftFile& file : files) epoch_size_ += file.count();
}

std::vector<ExampleRef> SftRows::epoch_order(int64_t epoch) const {
  std::vector<ExampleRef> order;
  order.reserve(static_cast<size_t>(epoch_size_));
  for (int64_t i = epoch * epoch_size_; i < (epoch + 1) * epoch_size_; ++i) {
    const auto [file, place] = mixture_.pick(i);
    const int64_t count = files_[file].count();
    const uint64_t stream = core::mix64(core::stream_of("sft.order") ^ static_cast<uint64_t>(file));
    const uint64_t key = core::random_bits(seed_, stream, place / count);
    order.push_back({static_cast<int32_t>(file), permuted(place % count, count, key)});
  }
  return order;
}

const std::vector<PackedRow>& SftRows::epoch_rows(int64_t epoch) {
  if (packed_epoch_ != epoch) {
    packed_ = pack_rows(files_, epoch_order(epoch), seq_len_);
    packed_epoch_ = epoch;
  }
  if (static_cast<int64_t>(epoch_begin_.size()) == epoch + 1)
    epoch_begin_.push_back(epoch_begin_.back() + static_cast<int64_t>(packed_.size()));
  return packed_;
}

std::vector<PackedRow> SftRows::rows(int64_t first, int64_t count) {
  while (epoch_begin_.back() <= first) epoch_rows(static_cast<int64_t>(epoch_begin_.size()) - 1);
  int64_t epoch =
      std::upper_bound(epoch_begin_.begin(), epoch_begin_.end(), first) - epoch_begin_.begin() - 1;
  std::vector<PackedRow> out;
  for (; count > 0; ++epoch) {
    const auto& packed = epoch_rows(epoch);
    const int64_t at = first - epoch_begin_[epoch];
    const int64_t taken = std::min(count, static_cast<int64_t>(packed.size()) - at);
    out.insert(out.end(), packed.begin() + at, packed.begin() + at + taken);
    first += taken;
    count -= taken;
  }
  return out;
}

int64_t SftRows::num_rows(double epochs) {
  const auto whole = static_cast<int64_t>(std::floor(epochs));
  while (static_cast<int64_t>(epoch_begin_.size()) <= whole)
    epoch_rows(static_cast<int64_t>(epoch_begin_.size()) - 1);
  const double part = epochs - static_cast<double>(whole);
  if (part == 0) return epoch_begin_[whole];
  const auto rows_of_last = static_cast<double>(epoch_rows(whole).size());
  return epoch_begin_[whole] + static_cast<int64_t>(std::ceil(part * rows_of_last));
}

SftBatch make_sft_batch(const std::vector<SftFile>& files,
                        std::span<const PackedRow> rows,
                        int64_t depths) {
  std::vector<int64_t> ids;
  std::vector<std::vector<int64_t>> targets(static_cast<size_t>(depths) + 1);
  SftBatch batch;
  TeacherRows teachers;
  for (const PackedRow& row : rows)
    for (const auto& [file, index] : row.examples) {
      teachers.add(files[file], index, static_cast<int64_t>(targets[0].size()));
      const auto tokens = files[file].tokens(index);
      const int64_t length = files[file].length(index);
      batch.layout.runs.push_back({0, static_cast<int64_t>(ids.size()), length - 1, 0});
      ids.insert(ids.end(), tokens.begin(), tokens.end() - 1);
      for (int64_t k = 0; k <= depths; ++k)
        for (int64_t t = k + 1; t < length; ++t)
          targets[k].push_back(files[file].trained(index, t) ? tokens[t] : -1);
    }
  COHORT_CHECK(!ids.empty(), "a batch of {} rows without examples", rows.size());
  batch.layout.batch = 1;
  batch.layout.seq_len = static_cast<int64_t>(ids.size());
  batch.layout.one_run_a_row = batch.layout.runs.size() == 1;
  batch.input_ids = filled(ids).unsqueeze(0);
  for (const auto& target : targets) batch.targets.push_back(filled(target));
  teachers.fill(batch);
  return batch;
}

RowCounts count_rows(const std::vector<SftFile>& files,
                     std::span<const PackedRow> rows,
                     int64_t depths) {
  RowCounts counts;
  counts.targets.assign(static_cast<size_t>(depths) + 1, 0);
  for (const PackedRow& row : rows) {
    counts.tokens += row.tokens;
    counts.examples += static_cast<int64_t>(row.examples.size());
    for (const auto& [file, index] : row.examples) counts.teacher += files[file].num_teacher(index);
    for (const auto& [file, index] : row.examples)
      for (int64_t k = 0; k <= depths; ++k) counts.targets[k] += files[file].num_targets(index, k);
  }
  return counts;
}

}  // namespace cohort::rl
