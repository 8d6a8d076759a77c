// A copy of the attention kernels with a fault planted in its source.
#define COHORT_DEVICE attention_fault_tail
#define COHORT_PLANT_FAULT kTail
#include "kernels/cuda/attention_backward.cu"
#include "kernels/cuda/attention_forward.cu"
#include "tests/catch.h"
#include "tests/kernels/device_attention.h"

TEST_CASE("A tile of queries that loses its last row is caught at every tail",
          "[kernels-device_attention]") {
  using namespace cohort::tests::attention_fault_tail;
  for (const std::vector<int64_t>& lengths :
       std::vector<std::vector<int64_t>>{{1}, {15}, {17}, {65}, {130}}) {
    INFO(lengths[0]);
    CHECK_FALSE(forward_is_right(AttentionCase(lengths, 1, 1, 16, 16)));
  }
}

TEST_CASE("A backward pass that loses the last row of its tiles is caught",
          "[kernels-device_attention]") {
  using namespace cohort::tests::attention_fault_tail;
  for (const std::vector<int64_t>& lengths :
       std::vector<std::vector<int64_t>>{{1}, {15}, {17}, {65}, {130}}) {
    INFO(lengths[0]);
    CHECK(backward_is_wrong(AttentionCase(lengths, 2, 1, 32, 32)));
  }
}
