// Choosing experts and weighing them (DeepSeek-V3, arXiv:2412.19437, eq. 12-16, and its node-limited
// groups), for one token after another; on raw pointers.
//
// T tokens, E experts, K chosen ones, G groups of E / G neighbouring experts. Each token costs one
// pass over its E scores; tokens are split over threads and never mixed, so results do not depend on
// the number of threads.
#pragma once
#include <cstdint>

namespace cohort::kernels {

enum class Scoring { kSigmoid, kSoftmax };

/// Affinities s [T, E] of logits [T, E]: sigmoid of each, or softmax over E.
template <class Real>
void router_scores(const Real* logits, int64_t T, int64_t E, Scoring scoring, Real* scores);

struct TopKShape {
  int64_t T, E, K;
  int64_t num_groups = 1, groups_kept = 1;
};

/// expert [T, K], ascending: the K largest of score + bias among the experts of the `groups_kept`
/// best groups, where a group's worth is the sum of its two largest (or its only) score + bias. Ties
/// go to the lower index; NaN counts as the least. bias [E] may be null.
template <class Real>
void choose_experts(const TopKShape& shape, const Real* scores, const Real* bias, int64_t* expert);

/// gate [T, K] = score of each chosen expert, divided by their sum + 1e-20 if `normalise`, times
/// `scale`.
template <class Real>
void gate_values(const TopKShape& shape,
                 const Real* scores,
                 const int64_t* expert,
                 bool normalise,
                 Real scale,
                 Real* gate);

/// d_logits [T, E] of gate_values through router_scores, given d_gate [T, K].
template <class Real>
void gate_values_backward(const TopKShape& shape,
                          const Real* scores,
                          const int64_t* expert,
                          const Real* d_gate,
                          bool normalise,
                          Real scale,
                          Scoring scoring,
                          Real* d_logits);

/// Row sums of eq. 17-20 for R sequences of S tokens each (T = R S): loss [R] = sum_i f_i P_i with
/// f_i = E / (K S) x (times expert i was chosen), P_i = mean over the sequence of s_i / sum_j s_j.
/// share [R, E] keeps f for the backward pass.
template <class Real>
void sequence_loss(int64_t R,
                   int64_t S,
                   const TopKShape& shape,
                   const Real* scores,
                   const int64_t* expert,
                   Real* loss,
                   Real* share);

/// Adds to d_logits [T, E] the gradient of `weight` x the sum over rows of sequence_loss (f is a
/// constant).
template <class Real>
void sequence_loss_backward(int64_t R,
                            int64_t S,
                            const TopKShape& shape,
                            const Real* scores,
                            const Real* share,
                            Real weight,
                            Scoring scoring,
                            Real* d_logits);

}  // namespace cohort::kernels
