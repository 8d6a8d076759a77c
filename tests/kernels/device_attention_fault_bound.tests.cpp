// A copy of the attention kernels with a fault planted in its source.
#define COHORT_DEVICE attention_fault_bound
#define COHORT_PLANT_FAULT kMask
#include "kernels/cuda/attention_backward.cu"
#include "kernels/cuda/attention_forward.cu"
#include "tests/catch.h"
#include "tests/kernels/device_attention.h"

TEST_CASE("A causal bound that is one key too late is caught at every length",
          "[kernels-device_attention]") {
  using namespace cohort::tests::attention_fault_bound;
  for (const std::vector<int64_t>& lengths :
       std::vector<std::vector<int64_t>>{{1}, {16}, {63}, {64}, {130}}) {
    INFO(lengths[0]);
    CHECK_FALSE(forward_is_right(AttentionCase(lengths, 1, 1, 16, 16)));
  }
}

TEST_CASE("A causal bound of the backward pass that is one key too late is caught",
          "[kernels-device_attention]") {
  using namespace cohort::tests::attention_fault_bound;
  for (const std::vector<int64_t>& lengths :
       std::vector<std::vector<int64_t>>{{2}, {16}, {63}, {64}, {130}}) {
    INFO(lengths[0]);
    CHECK(backward_is_wrong(AttentionCase(lengths, 2, 1, 32, 32)));
  }
}
