// The attention kernels with a fault planted in their source: kernels/cuda/host/CMakeLists.txt.
#define COHORT_DEVICE attention_fault_wait
#include "tests/catch.h"
#include "tests/kernels/device_attention.h"

TEST_CASE("A missing wait for asynchronous copies is caught", "[kernels-device_attention]") {
  using namespace cohort::tests::attention_fault_wait;
  for (const std::vector<int64_t>& lengths : std::vector<std::vector<int64_t>>{{1}, {64}, {130}}) {
    INFO(lengths[0]);
    CHECK_FALSE(forward_is_right(portable_forward, AttentionCase(lengths, 1, 1, 16, 16)));
  }
}

TEST_CASE("A missing wait for copies of the backward pass is caught",
          "[kernels-device_attention]") {
  using namespace cohort::tests::attention_fault_wait;
  for (const std::vector<int64_t>& lengths : std::vector<std::vector<int64_t>>{{1}, {64}, {130}}) {
    INFO(lengths[0]);
    CHECK(backward_is_wrong(portable_backward, AttentionCase(lengths, 2, 1, 32, 32)));
  }
}

TEST_CASE("A missing wait for products of Hopper's kernels is caught",
          "[kernels-device_attention_hopper]") {
  using namespace cohort::tests::attention_fault_wait;
  for (const std::vector<int64_t>& lengths : std::vector<std::vector<int64_t>>{{129}, {300}}) {
    INFO(lengths[0]);
    CHECK_FALSE(forward_is_right(hopper_forward, AttentionCase(lengths, 1, 1, 64, 64)));
  }
  for (const std::vector<int64_t>& lengths : std::vector<std::vector<int64_t>>{{64}, {130}}) {
    INFO(lengths[0]);
    CHECK(backward_is_wrong(hopper_backward, AttentionCase(lengths, 2, 1, 64, 64)));
  }
}
