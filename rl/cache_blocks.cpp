#include "rl/cache_blocks.h"

#include <algorithm>
#include <functional>

#include "core/base/error.h"

namespace cohort::rl {

CacheBlocks::CacheBlocks(int64_t blocks) : total_(blocks) {
  for (int64_t i = 0; i < blocks; ++i) free_.push_back(static_cast<int32_t>(i));
}

bool CacheBlocks::reserve(int64_t blocks) {
  if (promised_ + blocks > static_cast<int64_t>(free_.size())) return false;
  promised_ += blocks;
  return true;
}

int32_t CacheBlocks::take() {
  COHORT_CHECK(promised_ > 0 && !free_.empty(),
               "a cache block was taken that nobody reserved ({} promised, {} of {} free)",
               promised_,
               free_.size(),
               total_);
  --promised_;
  std::pop_heap(free_.begin(), free_.end(), std::greater<>());
  const int32_t block = free_.back();
  free_.pop_back();
  return block;
}

void CacheBlocks::give_back(const std::vector<int32_t>& taken, int64_t untaken) {
  promised_ -= untaken;
  for (const int32_t block : taken) {
    free_.push_back(block);
    std::push_heap(free_.begin(), free_.end(), std::greater<>());
  }
  COHORT_CHECK(promised_ >= 0 && static_cast<int64_t>(free_.size()) <= total_,
               "cache blocks were given back that nobody had ({} promised, {} of {} free)",
               promised_,
               free_.size(),
               total_);
}

}  // namespace cohort::rl
