// Gradients of attention_forward.
#pragma once
#include <cstddef>
#include <cstdint>

#include "kernels/cuda/attention_forward.cuh"

namespace cohort::kernels::COHORT_DEVICE {

/// Bytes of workspace that attention_backward wants.
size_t attention_backward_workspace(const AttentionProblem& problem);

/// From the operands and results of attention_forward and d_out [T, heads, v_dim]: d_q, d_k and d_v
/// in the shapes of q, k and v, of which each element is written once, without atomics: the same
/// input gives the same bits. A token's gradients do not depend on other runs. Pointers are device
/// memory, aligned to 16 bytes; rows are contiguous. Throws std::invalid_argument for sizes that
/// are not there.
void attention_backward(const AttentionProblem& problem,
                        const bf16* q,
                        const bf16* k,
                        const bf16* v,
                        const bf16* out,
                        const float* lse,
                        const bf16* d_out,
                        bf16* d_q,
                        bf16* d_k,
                        bf16* d_v,
                        void* workspace,
                        Stream stream);

/// The same by wgmma and TMA, on compute capability 9.0 alone, for the head sizes of
/// has_hopper_attention; a token's gradients depend on other runs where those are not finite.
void attention_backward_hopper(const AttentionProblem& problem,
                               const bf16* q,
                               const bf16* k,
                               const bf16* v,
                               const bf16* out,
                               const float* lse,
                               const bf16* d_out,
                               bf16* d_q,
                               bf16* d_k,
                               bf16* d_v,
                               void* workspace,
                               Stream stream);

}  // namespace cohort::kernels::COHORT_DEVICE
