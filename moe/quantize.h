// Weight-only quantisation of a model that is read and not trained.
#pragma once
#include "core/nn/quantized.h"
#include "moe/transformer.h"

namespace cohort::moe {

struct Quantization {
  int64_t matrices = 0;                       ///< Parameters that are quantised now.
  int64_t bytes_before = 0, bytes_after = 0;  ///< Of this rank's parameters, all of them.
};

/// Quantises every matrix of the model in place: projections of attention and MLPs and all experts
/// with options.bits; embedding and head, which hold rare tokens' only weights, with 8. Norms,
/// biases, routers and MLA's kv_b_proj (which decoding takes apart by heads) stay as they are. Then
/// forward without a graph and decode give what the dequantised weights would. The model must be
/// fp32 or bf16.
Quantization quantize(Transformer& model, const core::QuantizeOptions& options);

/// Bytes that hold this rank's parameters.
int64_t parameter_bytes(const Transformer& model);

}  // namespace cohort::moe
