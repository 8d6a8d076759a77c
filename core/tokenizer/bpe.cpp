#include "core/tokenizer/bpe.h"

#include <algorithm>
#include <bit>
#include <functional>

namespace cohort::core {
namespace {

uint64_t pair_of(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}
uint64_t mixed(uint64_t pair) {
  pair ^= pair >> 32;
  return pair * 0x9E3779B97F4A7C15ull;
}

}  // namespace

Bpe::Bpe(const std::array<int32_t, 256>& bytes, std::span<const Merge> merges) : bytes_(bytes) {
  const size_t num_slots = std::bit_ceil(2 * merges.size() + 2);
  shift_ = 64 - std::countr_zero(num_slots);
  slots_.assign(num_slots, Slot{~0ull, kNoRank, 0});
  for (size_t i = 0; i < merges.size(); ++i) {
    const uint64_t pair = pair_of(merges[i].left, merges[i].right);
    size_t slot = mixed(pair) >> shift_;
    while (slots_[slot].rank != kNoRank && slots_[slot].pair != pair)
      slot = (slot + 1) & (num_slots - 1);
    slots_[slot] = {pair, static_cast<uint32_t>(i), merges[i].result};
  }
}

const Bpe::Slot& Bpe::find(int32_t left, int32_t right) const {
  const uint64_t pair = pair_of(left, right);
  size_t slot = mixed(pair) >> shift_;
  while (slots_[slot].rank != kNoRank && slots_[slot].pair != pair)
    slot = (slot + 1) & (slots_.size() - 1);
  return slots_[slot];
}

void Bpe::encode(std::string_view bytes, Scratch& scratch, std::vector<int32_t>& out) const {
  std::vector<int32_t>& ids = scratch.ids;
  ids.clear();
  for (char byte : bytes) ids.push_back(bytes_[static_cast<unsigned char>(byte)]);
  if (ids.size() > 1) ids.size() <= 96 ? merge_short(scratch) : merge_long(scratch);
  out.insert(out.end(), ids.begin(), ids.end());
}

// Looking at every rank for the lowest is quicker than a heap on the few bytes of a word.
void Bpe::merge_short(Scratch& scratch) const {
  std::vector<int32_t>& ids = scratch.ids;
  std::vector<uint32_t>& ranks = scratch.ranks;  // ranks[i]: of the pair (i, i + 1)
  ranks.clear();
  for (size_t i = 0; i + 1 < ids.size(); ++i) ranks.push_back(rank(ids[i], ids[i + 1]));
  while (!ranks.empty()) {
    const size_t i =
        static_cast<size_t>(std::min_element(ranks.begin(), ranks.end()) - ranks.begin());
    if (ranks[i] == kNoRank) return;
    ids[i] = find(ids[i], ids[i + 1]).result;
    ids.erase(ids.begin() + i + 1);
    ranks.erase(ranks.begin() + i);
    if (i < ranks.size()) ranks[i] = rank(ids[i], ids[i + 1]);
    if (i > 0) ranks[i - 1] = rank(ids[i - 1], ids[i]);
  }
}

// A linked list of symbols and a heap of (rank, position). An entry is out of date when its symbol
// is gone or now forms a pair of another rank.
void Bpe::merge_long(Scratch& scratch) const {
  std::vector<int32_t>& ids = scratch.ids;
  const uint32_t count = static_cast<uint32_t>(ids.size());
  std::vector<uint32_t>&next = scratch.next, &previous = scratch.previous;
  std::vector<uint64_t>& heap = scratch.heap;
  next.resize(count);
  previous.resize(count);
  heap.clear();
  const auto entry = [&](uint32_t i) {
    return static_cast<uint64_t>(rank(ids[i], ids[next[i]])) << 32 | i;
  };
  for (uint32_t i = 0; i < count; ++i) {
    next[i] = i + 1;
    previous[i] = i - 1;  // of the first: never read
  }
  for (uint32_t i = 0; i + 1 < count; ++i)
    if (const uint64_t e = entry(i); e >> 32 != kNoRank) heap.push_back(e);
  std::make_heap(heap.begin(), heap.end(), std::greater<>());
  const auto push = [&](uint32_t i) {
    if (const uint64_t e = entry(i); e >> 32 != kNoRank) {
      heap.push_back(e);
      std::push_heap(heap.begin(), heap.end(), std::greater<>());
    }
  };
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    const uint64_t top = heap.back();
    heap.pop_back();
    const uint32_t i = static_cast<uint32_t>(top);
    if (ids[i] < 0 || next[i] == count || entry(i) != top) continue;
    const uint32_t gone = next[i];
    ids[i] = find(ids[i], ids[gone]).result;
    ids[gone] = -1;
    next[i] = next[gone];
    if (next[i] < count) {
      previous[next[i]] = i;
      push(i);
    }
    if (i > 0) push(previous[i]);
  }
  ids.erase(std::remove(ids.begin(), ids.end(), -1), ids.end());
}

}  // namespace cohort::core
