// Numbers strings of bytes 0, 1, 2, ... in the order in which they come: a flat hash table over one
// arena. It is what encode remembers pre-tokens by and what the trainer counts them by.
#pragma once
#include <xxhash.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace cohort::core {

class BytesIndex {
 public:
  static constexpr uint32_t kNone = ~0u;

  BytesIndex() { clear(); }

  uint32_t size() const { return static_cast<uint32_t>(ends_.size()); }
  size_t num_bytes() const { return arena_.size(); }
  std::string_view key(uint32_t index) const {
    const size_t begin = index ? ends_[index - 1] : 0;
    return std::string_view(arena_).substr(begin, ends_[index] - begin);
  }

  /// kNone when it is not there.
  uint32_t find(std::string_view key) const { return slots_[slot_of(key, hash(key))].index; }

  /// The number of `key`, which is the former size() when it is new. At most 2^31 keys.
  uint32_t insert(std::string_view key) {
    const uint64_t h = hash(key);
    const size_t slot = slot_of(key, h);
    if (slots_[slot].index != kNone) return slots_[slot].index;
    const uint32_t index = size();
    arena_.append(key);
    ends_.push_back(arena_.size());
    slots_[slot] = {static_cast<uint32_t>(h >> 32), index};
    if (2 * ends_.size() > slots_.size()) grow();
    return index;
  }

  void clear() {
    arena_.clear();
    ends_.clear();
    slots_.assign(1024, Slot{0, kNone});
  }

 private:
  struct Slot {
    uint32_t tag, index;
  };

  static uint64_t hash(std::string_view key) { return XXH3_64bits(key.data(), key.size()); }

  size_t slot_of(std::string_view wanted, uint64_t h) const {
    const uint32_t tag = static_cast<uint32_t>(h >> 32);
    for (size_t slot = h & (slots_.size() - 1);; slot = (slot + 1) & (slots_.size() - 1)) {
      const Slot& there = slots_[slot];
      if (there.index == kNone || (there.tag == tag && key(there.index) == wanted)) return slot;
    }
  }

  void grow() {
    slots_.assign(slots_.size() * 2, Slot{0, kNone});
    for (uint32_t index = 0; index < size(); ++index) {
      const uint64_t h = hash(key(index));
      size_t slot = h & (slots_.size() - 1);
      while (slots_[slot].index != kNone) slot = (slot + 1) & (slots_.size() - 1);
      slots_[slot] = {static_cast<uint32_t>(h >> 32), index};
    }
  }

  std::string arena_;
  std::vector<size_t> ends_;
  std::vector<Slot> slots_;
};

}  // namespace cohort::core
