// Byte-pair encoding: the merge of lowest rank first, the leftmost of equals (Sennrich, Haddow,
// Birch 2016, as GPT-2 applies it to bytes).
#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace cohort::core {

class Bpe {
 public:
  struct Merge {
    int32_t left, right, result;
  };

  /// `bytes`: the id of each single byte. The rank of a merge is its position; of a pair that
  /// stands twice, the later counts.
  Bpe(const std::array<int32_t, 256>& bytes, std::span<const Merge> merges);

  /// Memory to reuse from call to call; one a thread.
  struct Scratch {
    std::vector<int32_t> ids;
    std::vector<uint32_t> ranks, next, previous;
    std::vector<uint64_t> heap;
  };
  /// Appends the ids of one pre-token. O(n log n) in its length.
  void encode(std::string_view bytes, Scratch& scratch, std::vector<int32_t>& out) const;

 private:
  static constexpr uint32_t kNoRank = ~0u;
  struct Slot {
    uint64_t pair;
    uint32_t rank;
    int32_t result;
  };

  const Slot& find(int32_t left, int32_t right) const;
  uint32_t rank(int32_t left, int32_t right) const { return find(left, right).rank; }
  void merge_short(Scratch& scratch) const;
  void merge_long(Scratch& scratch) const;

  std::array<int32_t, 256> bytes_;
  std::vector<Slot> slots_;  // open addressing; a free slot has rank kNoRank
  int shift_;
};

}  // namespace cohort::core
