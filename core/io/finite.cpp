#include "core/io/finite.h"

#include <cstdint>

#include "core/base/error.h"

namespace cohort::core {
namespace {

/// An exponent of ones stands for NaN and infinity alike. Without a branch, so that it vectorises.
template <class Bits>
bool none_has(const at::Tensor& values, Bits exponent) {
  const auto* bits = static_cast<const Bits*>(values.const_data_ptr());
  constexpr int64_t kPiece = 4096;
  for (int64_t at = 0; at < values.numel(); at += kPiece) {
    const int64_t end = std::min(at + kPiece, values.numel());
    unsigned found = 0;
    for (int64_t i = at; i < end; ++i) found |= (bits[i] & exponent) == exponent;
    if (found) return false;
  }
  return true;
}

}  // namespace

bool all_finite(const at::Tensor& values) {
  COHORT_CHECK(values.is_contiguous() && values.device().is_cpu(), "all_finite: not contiguous");
  switch (values.scalar_type()) {
    case at::kDouble:
      return none_has<uint64_t>(values, 0x7ff0000000000000u);
    case at::kFloat:
      return none_has<uint32_t>(values, 0x7f800000u);
    case at::kHalf:
      return none_has<uint16_t>(values, 0x7c00u);
    case at::kBFloat16:
      return none_has<uint16_t>(values, 0x7f80u);
    case at::kFloat8_e4m3fn:
      return none_has<uint8_t>(values, 0x7fu);  // has NaN alone
    case at::kFloat8_e5m2:
      return none_has<uint8_t>(values, 0x7cu);
    default:
      return true;
  }
}

}  // namespace cohort::core
