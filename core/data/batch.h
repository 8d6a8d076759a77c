// What the data pipeline hands to the model.
#pragma once
#include <ATen/ATen.h>

namespace cohort::core {

/// `B` rows of packed documents. Position t of a row predicts tokens[:, t + 1]; it is a target only
/// when both lie in the same document, and attention stays within a document.
struct Batch {
  at::Tensor tokens;       ///< [B, S + 1] int64, CPU.
  at::Tensor document_id;  ///< [B, S + 1] int64, CPU: 0, 1, 2, ... along the row; equal ids are one
                           ///< document. Undefined: one document a row.

  int64_t num_rows() const { return tokens.size(0); }
  int64_t seq_len() const { return tokens.size(1) - 1; }
};

}  // namespace cohort::core
