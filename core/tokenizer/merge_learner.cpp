#include "core/tokenizer/merge_learner.h"

#include <algorithm>
#include <queue>
#include <unordered_map>

namespace cohort::core {
namespace {

uint64_t pair_of(int32_t left, int32_t right) {
  return static_cast<uint64_t>(left) << 32 | static_cast<uint64_t>(right);
}

/// Pair -> count, and where the pair has just come into being. Flat, never shrinks.
class PairTable {
 public:
  struct Entry {
    uint64_t pair = kFree;
    int64_t count = 0;
    uint32_t round = 0;  // the round in which `places` was made
    uint32_t places = 0;
  };

  PairTable() : entries_(1 << 16) {}

  Entry& operator[](uint64_t pair) {
    Entry* entry = &find(pair);
    if (entry->pair != kFree) return *entry;
    if (2 * ++size_ > entries_.size()) {
      grow();
      entry = &find(pair);
    }
    entry->pair = pair;
    return *entry;
  }

 private:
  static constexpr uint64_t kFree = ~0ull;

  Entry& find(uint64_t pair) {
    size_t at = ((pair ^ pair >> 29) * 0x9E3779B97F4A7C15ull) >> 20;
    for (;; ++at) {
      Entry& entry = entries_[at & (entries_.size() - 1)];
      if (entry.pair == pair || entry.pair == kFree) return entry;
    }
  }
  void grow() {
    std::vector<Entry> old(entries_.size() * 2);
    old.swap(entries_);
    for (const Entry& entry : old)
      if (entry.pair != kFree) find(entry.pair) = entry;
  }

  std::vector<Entry> entries_;
  size_t size_ = 0;
};

/// A pair that may be merged next. Its count may be out of date: then it goes back with the right
/// one when it comes up.
struct Candidate {
  int64_t count;
  uint64_t pair;
  uint32_t places;

  bool operator<(const Candidate& other) const {  // the greatest comes first
    if (count != other.count) return count < other.count;
    return pair != other.pair ? pair > other.pair : places > other.places;
  }
};

class MergeLearner {
 public:
  explicit MergeLearner(CountedWords words)
      : words_(std::move(words)), lengths_(words_.num_words()) {
    for (size_t word = 0; word < words_.num_words(); ++word) {
      const int32_t* symbols = words_.symbols.data() + words_.begins[word];
      lengths_[word] = static_cast<uint32_t>(words_.begins[word + 1] - words_.begins[word]);
      for (uint32_t i = 0; i + 1 < lengths_[word]; ++i)
        change(pair_of(symbols[i], symbols[i + 1]), words_.counts[word], word);
    }
    enqueue_new_pairs();
  }

  void run(size_t vocab_size, int64_t min_frequency, MergeTask& task) {
    std::unordered_map<std::string, int32_t> ids;
    for (size_t id = 0; id < task.vocabulary.size(); ++id)
      ids.emplace(task.vocabulary[id], static_cast<int32_t>(id));
    while (task.vocabulary.size() < vocab_size && !queue_.empty()) {
      Candidate top = queue_.top();
      queue_.pop();
      const int64_t count = pairs_[top.pair].count;
      if (count != top.count) {
        top.count = count;
        queue_.push(top);
        continue;
      }
      if (count < std::max<int64_t>(1, min_frequency)) return;
      const int32_t left = static_cast<int32_t>(top.pair >> 32);
      const int32_t right = static_cast<int32_t>(top.pair);
      std::string token = task.vocabulary[left] + task.vocabulary[right];
      if (task.taken.count(token)) continue;
      // Two ways may lead to one token ("in" + "g", "i" + "ng").
      const auto [known, is_new] = ids.emplace(token, static_cast<int32_t>(task.vocabulary.size()));
      if (is_new) task.vocabulary.push_back(std::move(token));
      const int32_t result = known->second;
      task.merges.push_back({left, right, result});
      for (uint32_t word : places_[top.places]) merge(word, left, right, result);
      std::vector<uint32_t>().swap(places_[top.places]);
      enqueue_new_pairs();
    }
  }

 private:
  void change(uint64_t pair, int64_t by, size_t word) {
    PairTable::Entry& entry = pairs_[pair];
    entry.count += by;
    if (by <= 0) return;
    if (entry.round != round_) {
      entry.round = round_;
      entry.places = static_cast<uint32_t>(places_.size());
      places_.emplace_back();
      new_pairs_.push_back(pair);
    }
    auto& places = places_[entry.places];
    if (places.empty() || places.back() != word) places.push_back(static_cast<uint32_t>(word));
  }

  void enqueue_new_pairs() {
    for (uint64_t pair : new_pairs_) {
      const PairTable::Entry& entry = pairs_[pair];
      if (entry.count > 0) queue_.push({entry.count, pair, entry.places});
    }
    new_pairs_.clear();
    ++round_;
  }

  /// Merges within one word, and counts the pairs that go and come.
  void merge(uint32_t word, int32_t left, int32_t right, int32_t result) {
    int32_t* symbols = words_.symbols.data() + words_.begins[word];
    const uint32_t length = lengths_[word];
    const int64_t count = words_.counts[word];
    uint32_t out = 0;
    for (uint32_t in = 0; in < length; ++out) {
      if (symbols[in] != left || in + 1 >= length || symbols[in + 1] != right) {
        symbols[out] = symbols[in++];
        continue;
      }
      if (out > 0) {
        change(pair_of(symbols[out - 1], left), -count, word);
        change(pair_of(symbols[out - 1], result), count, word);
      }
      in += 2;
      if (in < length) {
        change(pair_of(right, symbols[in]), -count, word);
        change(pair_of(result, symbols[in]), count, word);
      }
      symbols[out] = result;
    }
    lengths_[word] = out;
  }

  CountedWords words_;
  std::vector<uint32_t> lengths_;  // words shrink in place
  PairTable pairs_;
  std::vector<std::vector<uint32_t>> places_;  // words that held a pair when it came into being
  std::vector<uint64_t> new_pairs_;
  std::priority_queue<Candidate> queue_;
  uint32_t round_ = 1;
};

}  // namespace

void learn_merges(CountedWords words, int64_t vocab_size, int64_t min_frequency, MergeTask& task) {
  if (vocab_size <= static_cast<int64_t>(task.vocabulary.size())) return;
  MergeLearner(std::move(words)).run(static_cast<size_t>(vocab_size), min_frequency, task);
}

}  // namespace cohort::core
