#include "moe/quantize.h"

namespace cohort::moe {
namespace {

bool is_matrix_of_products(const core::Parameter& parameter) {
  const std::string& name = parameter.parts[0].name;
  return parameter.value.dim() >= 2 && !name.ends_with(".kv_b_proj.weight") &&
         !name.ends_with(".mlp.gate.weight");
}

}  // namespace

int64_t parameter_bytes(const Transformer& model) {
  int64_t bytes = 0;
  for (const core::Parameter& parameter : model.parameters())
    bytes += core::weight_bytes(parameter.value);
  return bytes;
}

Quantization quantize(Transformer& model, const core::QuantizeOptions& options) {
  Quantization out;
  out.bytes_before = parameter_bytes(model);
  for (const core::Parameter& parameter : model.parameters()) {
    if (!is_matrix_of_products(parameter)) continue;
    const int bits = parameter.is_embedding ? 8 : options.bits;
    core::quantize_weight(parameter.value, {bits, options.group});
    out.matrices += 1;
  }
  out.bytes_after = parameter_bytes(model);
  return out;
}

}  // namespace cohort::moe
