// Blocks of a KV cache: which are free, and what has been promised.
#pragma once
#include <cstdint>
#include <vector>

namespace cohort::rl {

/// Rows of the cache in blocks of `kBlockRows`. A sequence first reserves the most it may come to
/// need and then takes blocks as it grows, so that taking never fails.
class CacheBlocks {
 public:
  static constexpr int64_t kBlockRows = 16;

  explicit CacheBlocks(int64_t blocks);

  static int64_t blocks_for(int64_t rows) { return (rows + kBlockRows - 1) / kBlockRows; }
  static int64_t first_row(int32_t block) { return block * kBlockRows; }

  /// Whether so many blocks could be promised, and if so promises them.
  bool reserve(int64_t blocks);
  /// One of the promised blocks, the lowest that is free.
  int32_t take();
  /// Blocks that were taken, and promised ones that no longer will be.
  void give_back(const std::vector<int32_t>& taken, int64_t untaken);

  int64_t total() const { return total_; }
  int64_t in_use() const { return total_ - static_cast<int64_t>(free_.size()); }

 private:
  int64_t total_, promised_ = 0;
  std::vector<int32_t> free_;  ///< A heap: the lowest on top.
};

}  // namespace cohort::rl
