// The attention kernels with a fault planted in their source: kernels/cuda/host/CMakeLists.txt.
#define COHORT_DEVICE planted_tail
#include "tests/catch.h"
#include "tests/kernels/device_attention.h"

TEST_CASE("A tile of queries that loses its last row is caught at every tail",
          "[kernels-device_attention]") {
  using namespace cohort::tests::planted_tail;
  for (const std::vector<int64_t>& lengths :
       std::vector<std::vector<int64_t>>{{1}, {15}, {17}, {65}, {130}}) {
    INFO(lengths[0]);
    CHECK_FALSE(forward_is_right(portable_forward, AttentionCase(lengths, 1, 1, 16, 16)));
  }
}

TEST_CASE("A backward pass that loses the last row of its tiles is caught",
          "[kernels-device_attention]") {
  using namespace cohort::tests::planted_tail;
  for (const std::vector<int64_t>& lengths :
       std::vector<std::vector<int64_t>>{{1}, {15}, {17}, {65}, {130}}) {
    INFO(lengths[0]);
    CHECK(backward_is_wrong(portable_backward, AttentionCase(lengths, 2, 1, 32, 32)));
  }
}

TEST_CASE("A tile of Hopper's kernels that loses its last row is caught",
          "[kernels-device_attention_hopper]") {
  using namespace cohort::tests::planted_tail;
  for (const std::vector<int64_t>& lengths : std::vector<std::vector<int64_t>>{{1}, {65}, {130}}) {
    INFO(lengths[0]);
    CHECK_FALSE(forward_is_right(hopper_forward, AttentionCase(lengths, 1, 1, 64, 64)));
  }
  for (const std::vector<int64_t>& lengths : std::vector<std::vector<int64_t>>{{1}, {65}, {130}}) {
    INFO(lengths[0]);
    CHECK(backward_is_wrong(hopper_backward, AttentionCase(lengths, 2, 1, 64, 64)));
  }
}
