// Device twin of kernels/cpu/router.h, in two kernels. Pointers are device memory, `stream` is
// where the work is queued; nothing here waits for the host. Logit is float or bf16; sums are fp32.
#pragma once
#include <cstdint>

#include "kernels/cuda/device.cuh"

namespace cohort::kernels::COHORT_DEVICE {

enum class Scoring { kSigmoid, kSoftmax };

/// T tokens, E experts of which each takes K, from the groups_kept best of num_groups groups of E /
/// num_groups neighbouring experts. E <= 1024, num_groups <= 32 and divides E, K <= 32 and K <=
/// groups_kept E / num_groups.
struct RouterShape {
  int64_t T, E, K;
  int64_t num_groups = 1, groups_kept = 1;
  Scoring scoring = Scoring::kSigmoid;
  bool normalise = true;  ///< Divide gates by their sum + 1e-20.
  float scale = 1;        ///< Then times this.
};

/// From logits [T, E] and bias [E] (null: zeros) to scores [T, E], expert [T, K] ascending and gate
/// [T, K], as router_scores, choose_experts and gate_values give them (DeepSeek-V3, eq. 12-16): the
/// bias chooses and does not weigh, ties go to the lower index, NaN counts as the least.
template <class Logit>
void route(const RouterShape& shape,
           const Logit* logits,
           const float* bias,
           float* scores,
           int64_t* expert,
           float* gate,
           Stream stream);

/// d_logits [T, E] given d_gate [T, K] (gate_values_backward). With d_scores [T, E] not null, that
/// is the gradient of `scores` by another way (the balance loss), and is added before the logits.
template <class Logit>
void route_backward(const RouterShape& shape,
                    const float* scores,
                    const int64_t* expert,
                    const float* d_gate,
                    const float* d_scores,
                    Logit* d_logits,
                    Stream stream);

}  // namespace cohort::kernels::COHORT_DEVICE
