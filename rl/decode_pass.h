// The tokens of one decoding pass, and where each sequence lies in the cache.
#pragma once
#include <ATen/ATen.h>

#include <algorithm>
#include <initializer_list>
#include <utility>
#include <vector>

#include "core/nn/attention.h"
#include "rl/cache_blocks.h"

namespace cohort::rl {

/// Rows of one pass, gathered on the way.
struct DecodePass {
  std::vector<int64_t> tokens, positions, slots, spans, first_span{0};

  /// A token whose sequence lies in `parts`: blocks and how many of their rows are filled, itself
  /// the last.
  void add(int64_t token,
           int64_t position,
           std::initializer_list<std::pair<const std::vector<int32_t>*, int64_t>> parts) {
    tokens.push_back(token);
    positions.push_back(position);
    const size_t first = spans.size();
    for (const auto& [blocks, rows] : parts)
      for (int64_t done = 0, i = 0; done < rows; ++i) {
        const int64_t count = std::min(CacheBlocks::kBlockRows, rows - done);
        const int64_t row = CacheBlocks::first_row((*blocks)[i]);
        // Neighbouring blocks are one span.
        if (spans.size() > first && spans[spans.size() - 2] + spans.back() == row)
          spans.back() += count;
        else
          spans.insert(spans.end(), {row, count});
        done += count;
      }
    slots.push_back(spans[spans.size() - 2] + spans.back() - 1);
    first_span.push_back(static_cast<int64_t>(spans.size()) / 2);
  }

  int64_t size() const { return static_cast<int64_t>(tokens.size()); }

  core::DecodeLayout layout() const {
    return {at::tensor(positions, at::kLong),
            at::tensor(slots, at::kLong),
            at::tensor(spans, at::kLong).view({static_cast<int64_t>(spans.size()) / 2, 2}),
            at::tensor(first_span, at::kLong)};
  }
};

}  // namespace cohort::rl
