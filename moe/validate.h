// The held-out loss.
#pragma once
#include "core/config/config.h"
#include "core/data/loader.h"
#include "distributed/mesh.h"
#include "moe/transformer.h"

namespace cohort::moe {

struct Validation {
  double loss = 0;           ///< Nats a target.
  double bits_per_byte = 0;  ///< loss x targets / (ln 2 x bytes of their text); 0 if bytes are unknown.
  int64_t targets = 0;
};

/// Over the first `max_rows` rows (0: all), shared out over the ranks of dp. Collective.
Validation validate(Transformer& model,
                    const core::ValidationSet& set,
                    int64_t micro_batch,
                    int64_t max_rows,
                    const distributed::Mesh& mesh);

}  // namespace cohort::moe
