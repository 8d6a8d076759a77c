// Learns BPE merges from counted words: the most frequent pair first, the pair of lowest ids among
// equals, as Hugging Face's BpeTrainer does, with the same ids and the same merges for the same
// words.
#pragma once
#include <cstdint>
#include <string>
#include <unordered_set>
#include <vector>

#include "core/tokenizer/bpe.h"

namespace cohort::core {

struct MergeTask {
  std::vector<std::string> vocabulary;    ///< Tokens to begin with, by id; grows.
  std::unordered_set<std::string> taken;  ///< Contents that no merge may make: special tokens.
  std::vector<Bpe::Merge> merges;         ///< Grows.
};

/// Words as ids of single-byte tokens, one after the other.
struct CountedWords {
  std::vector<int32_t> symbols;
  std::vector<size_t> begins{0};  ///< num_words() + 1 positions.
  std::vector<int64_t> counts;
  size_t num_words() const { return counts.size(); }
};

/// Adds tokens and merges to `task` until it has vocab_size tokens or no pair is seen min_frequency
/// times. A merge costs time in proportion to the words that hold its pair. Consumes `words`.
void learn_merges(CountedWords words, int64_t vocab_size, int64_t min_frequency, MergeTask& task);

}  // namespace cohort::core
