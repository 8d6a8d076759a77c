#include "core/data/loader.h"

#include <algorithm>
#include <cmath>
#include <mutex>

#include "core/base/error.h"
#include "core/base/rng.h"
#include "core/data/indexed_dataset.h"
#include "core/data/mixture.h"

namespace cohort::core {
namespace {

/// Sets of up to this many tokens are checked whole when they are opened (well under a second);
/// of larger ones the beginning, and every row as it is read.
constexpr int64_t kCheckedAtOpening = int64_t{1} << 28;

/// One pass over a set: its documents in a shuffled order, one after the other.
struct Epoch {
  std::vector<uint32_t> order;  ///< Documents.
  std::vector<int64_t> starts;  ///< Tokens before order[i]; the last entry is all tokens.
};

/// Fisher-Yates with counter-based draws: the order is a function of (seed, source, epoch) alone.
Epoch shuffle(const IndexedDataset& set, uint64_t seed, int64_t source, int64_t epoch) {
  const int64_t count = set.num_documents();
  Epoch result;
  result.order.resize(count);
  for (int64_t i = 0; i < count; ++i) result.order[i] = static_cast<uint32_t>(i);
  const uint64_t stream = mix64(mix64(stream_of("data.epoch") ^ source) ^ epoch);
  for (int64_t i = count - 1; i > 0; --i) {
    const uint64_t bits = random_bits(seed, stream, i);
    const auto j = static_cast<int64_t>((static_cast<unsigned __int128>(bits) * (i + 1)) >> 64);
    std::swap(result.order[i], result.order[j]);
  }
  result.starts.reserve(count + 1);
  result.starts.push_back(0);
  for (const uint32_t document : result.order)
    result.starts.push_back(result.starts.back() + set.document_length(document));
  return result;
}

/// A token set read for ever: epoch after epoch, each shuffled anew.
class EndlessStream {
 public:
  EndlessStream(const std::string& path, uint64_t seed, int64_t source)
      : set_(path), seed_(seed), source_(source) {
    COHORT_CHECK_INPUT(set_.num_documents() < int64_t{1} << 32,
                       "{}: {} documents; a source may have up to 2^32: split it in two",
                       set_.prefix(),
                       set_.num_documents());
  }
  const IndexedDataset& set() const { return set_; }

  /// Tokens [position, position + count) of the stream; documents are numbered from 0.
  void read(int64_t position, int64_t count, int64_t* tokens, int64_t* document_id) const {
    int64_t id = 0;
    while (count > 0) {
      const auto epoch = epoch_of(position / set_.num_tokens());
      int64_t at = position % set_.num_tokens();
      const auto& starts = epoch->starts;
      int64_t i = std::upper_bound(starts.begin(), starts.end(), at) - starts.begin() - 1;
      for (; count > 0 && at < starts.back(); ++i) {
        const int64_t taken = std::min(count, starts[i + 1] - at);
        if (taken == 0) continue;  // An empty document.
        set_.read(epoch->order[i], at - starts[i], taken, tokens);
        std::fill_n(document_id, taken, id++);
        tokens += taken;
        document_id += taken;
        at += taken;
        position += taken;
        count -= taken;
      }
    }
  }

 private:
  /// Computed when first asked for; the last two are kept, as rows may lie across a seam.
  std::shared_ptr<const Epoch> epoch_of(int64_t number) const {
    const std::lock_guard lock(mutex_);
    for (const auto& [known, epoch] : cached_)
      if (epoch && known == number) return epoch;
    auto epoch = std::make_shared<const Epoch>(shuffle(set_, seed_, source_, number));
    auto& slot = cached_[number % 2];
    slot = {number, epoch};
    return epoch;
  }

  IndexedDataset set_;
  uint64_t seed_;
  int64_t source_;
  mutable std::mutex mutex_;
  mutable std::pair<int64_t, std::shared_ptr<const Epoch>> cached_[2];
};

void check_vocabulary(const IndexedDataset& set, int64_t vocab_size) {
  set.check_tokens(vocab_size, kCheckedAtOpening);
}

/// The rest of a set too large to be checked when it was opened.
void check_row(const IndexedDataset& set,
               const int64_t* tokens,
               int64_t count,
               int64_t vocab_size) {
  for (int64_t i = 0; i < count; ++i)
    COHORT_CHECK_INPUT(tokens[i] >= 0 && tokens[i] < vocab_size,
                       "{}.bin: holds the token {}, but the vocabulary has ids 0 to {}",
                       set.prefix(),
                       tokens[i],
                       vocab_size - 1);
}

Batch empty_batch(int64_t rows, int64_t seq_len) {
  return {at::empty({rows, seq_len + 1}, at::kLong), at::empty({rows, seq_len + 1}, at::kLong)};
}

Mixture make_mixture(const DataConfig& config, uint64_t seed) {
  COHORT_CHECK_INPUT(!config.train.empty(), "data.train names no source; give at least one path");
  std::vector<double> weights;
  double sum = 0;
  for (const auto& source : config.train) {
    COHORT_CHECK_INPUT(std::isfinite(source.weight) && source.weight >= 0,
                       "data.train: {} has the weight {}; a weight is a number >= 0",
                       source.path,
                       source.weight);
    weights.push_back(source.weight);
    sum += source.weight;
  }
  COHORT_CHECK_INPUT(
      std::isfinite(sum) && sum > 0, "data.train: the weights sum to {}; one must be > 0", sum);
  return Mixture(weights, seed);
}

}  // namespace

struct TrainSampler::State {
  State(const DataConfig& config, uint64_t seed, int64_t vocab)
      : mixture(make_mixture(config, seed)), seq_len(config.seq_len), vocab_size(vocab) {
    COHORT_CHECK_INPUT(seq_len > 0, "data.seq_len is {}; it must be positive", seq_len);
    double sum = 0;
    for (const auto& source : config.train) sum += source.weight;
    for (const auto& source : config.train) {
      streams.push_back(
          std::make_unique<EndlessStream>(source.path, seed, static_cast<int64_t>(streams.size())));
      const IndexedDataset& set = streams.back()->set();
      COHORT_CHECK_INPUT(set.num_tokens() > seq_len,
                         "{}: {} tokens in {} documents, too few for one row of data.seq_len + 1 = "
                         "{}; add text or lower data.seq_len",
                         set.prefix(),
                         set.num_tokens(),
                         set.num_documents(),
                         seq_len + 1);
      check_vocabulary(set, vocab_size);
      infos.push_back({set.prefix(),
                       source.weight / sum,
                       set.num_documents(),
                       set.num_tokens(),
                       set.info().bytes});
    }
  }

  Mixture mixture;
  int64_t seq_len, vocab_size;
  std::vector<std::unique_ptr<EndlessStream>> streams;
  std::vector<DataSourceInfo> infos;
};

TrainSampler::TrainSampler(const DataConfig& config, uint64_t seed, int64_t vocab_size)
    : state_(std::make_unique<State>(config, seed, vocab_size)) {}
TrainSampler::~TrainSampler() = default;
TrainSampler::TrainSampler(TrainSampler&&) noexcept = default;

Batch TrainSampler::rows(int64_t first, int64_t count) const {
  COHORT_CHECK(first >= 0 && count >= 0, "samples [{}, {})", first, first + count);
  const int64_t length = state_->seq_len + 1;
  Batch batch = empty_batch(count, state_->seq_len);
  for (int64_t row = 0; row < count; ++row) {
    const auto [source, index] = state_->mixture.pick(first + row);
    const EndlessStream& stream = *state_->streams[source];
    int64_t* tokens = batch.tokens.data_ptr<int64_t>() + row * length;
    int64_t* document_id = batch.document_id.data_ptr<int64_t>() + row * length;
    stream.read(index * state_->seq_len, length, tokens, document_id);
    check_row(stream.set(), tokens, length, state_->vocab_size);
  }
  return batch;
}

std::vector<DataSourceInfo> TrainSampler::sources() const { return state_->infos; }

struct ValidationSet::State {
  State(const std::string& prefix, int64_t length, int64_t vocab)
      : set(prefix), seq_len(length), vocab_size(vocab) {
    COHORT_CHECK_INPUT(seq_len > 0, "data.seq_len is {}; it must be positive", seq_len);
    COHORT_CHECK_INPUT(set.num_tokens() > 1,
                       "{}: a held-out set of {} tokens; prepare the data again with a larger "
                       "--validation-fraction",
                       set.prefix(),
                       set.num_tokens());
    check_vocabulary(set, vocab_size);
  }

  IndexedDataset set;
  int64_t seq_len, vocab_size;
};

ValidationSet::ValidationSet(const std::string& prefix, int64_t seq_len, int64_t vocab_size)
    : state_(std::make_unique<State>(prefix, seq_len, vocab_size)) {}
ValidationSet::~ValidationSet() = default;
ValidationSet::ValidationSet(ValidationSet&&) noexcept = default;

int64_t ValidationSet::num_rows() const {
  return (state_->set.num_tokens() - 1 + state_->seq_len - 1) / state_->seq_len;
}
int64_t ValidationSet::num_documents() const { return state_->set.num_documents(); }
int64_t ValidationSet::num_tokens() const { return state_->set.num_tokens(); }
int64_t ValidationSet::num_bytes() const { return state_->set.info().bytes; }

Batch ValidationSet::rows(int64_t first, int64_t count) const {
  COHORT_CHECK(first >= 0 && count >= 0 && first + count <= num_rows(),
               "validation rows [{}, {}) of {}",
               first,
               first + count,
               num_rows());
  const IndexedDataset& set = state_->set;
  const int64_t length = state_->seq_len + 1;
  Batch batch = empty_batch(count, state_->seq_len);
  batch.tokens.zero_();
  batch.document_id.fill_(-1);
  for (int64_t row = 0; row < count; ++row) {
    int64_t position = (first + row) * state_->seq_len;
    const int64_t end = std::min(position + length, set.num_tokens());
    int64_t* tokens = batch.tokens.data_ptr<int64_t>() + row * length;
    int64_t* document_id = batch.document_id.data_ptr<int64_t>() + row * length;
    const int64_t in_row = end - position;
    int64_t id = 0;
    for (int64_t document = set.document_at(position), done = 0; position < end; ++document) {
      const int64_t offset = position - set.document_start(document);
      const int64_t taken = std::min(end - position, set.document_length(document) - offset);
      if (taken == 0) continue;  // An empty document.
      set.read(document, offset, taken, tokens + done);
      std::fill_n(document_id + done, taken, id++);
      done += taken;
      position += taken;
    }
    check_row(set, tokens, in_row, state_->vocab_size);
  }
  return batch;
}

}  // namespace cohort::core
