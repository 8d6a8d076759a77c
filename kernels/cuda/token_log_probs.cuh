// Token log-probabilities, entropies and cross-entropy from tiles of logits, and the gradient of
// the former in place: the device side of kernels/cpu/token_log_probs.h and cross_entropy.h. A tile
// is a range of classes, so [tokens, vocabulary] need not exist: the output layer is multiplied a
// range at a time, forward over all ranges, then again for the gradient. Logit is float or bf16;
// sums are fp32.
#pragma once
#include <cstdint>

#include "kernels/cuda/device.cuh"

namespace cohort::kernels::COHORT_DEVICE {

/// What a row of logits has come to after some tiles; 16 bytes. Set by the first tile.
struct alignas(16) SoftmaxState {
  float top;        ///< Largest logit so far.
  float sum;        ///< Of e_j = e^((l_j - top) inverse_temperature).
  float weighted;   ///< Of e_j (l_j - top) inverse_temperature.
  float at_target;  ///< The target's logit, once its tile has come.
};

/// Classes [first_class, first_class + classes) of each row: logits [rows, classes] contiguous.
/// target [rows] counts over all classes; < 0: the row has none.
template <class Logit>
struct LogitTile {
  Logit* logits;
  const int64_t* target;
  int64_t rows, classes, first_class;
  float inverse_temperature;
};

/// Adds the tile to state [rows]; the tile with first_class 0 comes first.
template <class Logit>
void add_logit_tile(const LogitTile<Logit>& tile, SoftmaxState* state, Stream stream);

/// log_prob[i] = log p[target[i]] (0 without a target; minus it is the cross-entropy) and, if not
/// null, entropy[i] = -sum_j p_j log p_j in nats, with p = softmax(inverse_temperature *
/// logits[i]).
void finish_log_probs(const SoftmaxState* state,
                      const int64_t* target,
                      int64_t rows,
                      float inverse_temperature,
                      float* log_prob,
                      float* entropy,
                      Stream stream);

/// logits := coefficient[i] inverse_temperature (onehot(target[i]) - p), the gradient of sum_i
/// coefficient[i] log_prob[i]; zeros in rows without a target. `state` has seen every tile.
template <class Logit>
void logit_tile_gradient(const LogitTile<Logit>& tile,
                         const SoftmaxState* state,
                         const float* coefficient,
                         Stream stream);

}  // namespace cohort::kernels::COHORT_DEVICE
