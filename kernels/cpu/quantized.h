// Weights of 8 or 4 bits with a scale for each group of inputs, and their product with fp32 rows.
//
// Of a matrix W [n, k], y = x W^T, each row is cut into groups of `group` elements. 8 bits:
// w = scale q, q in -127 .. 127, scale = max |w| / 127. 4 bits: w = offset + scale q, q in 0 .. 15,
// scale = (max - min) / 15, offset = min. Rounded to nearest, so an element is off by at most half
// a scale (and fp32's rounding).
//
// Layout: panels of `lanes` rows, as wide as a vector of kernels::gemm, rows beyond n zero. Data
// [panel][k][lanes] bytes, or [panel][(k + 1) / 2][lanes] with k even in the low half and k odd in
// the high half; scales and offsets [panel][group][lanes] fp32. Inputs side by side for all rows of
// a panel: a vector of bytes becomes a vector of the GEMM's packed operand without a shuffle.
//
// The product turns a block of up to 128 rows and 256 inputs into fp32 (128 KiB, stays in L2) and
// hands it to the GEMM as its packed operand. So y has the very bits of the GEMM on the dequantised
// matrix. Bytes from memory: bits / 8 + 4 or 8 / group for an element of W, once; x once for every
// 128 rows. FLOPs: 2 m n k, and one or two for each element of W.
#pragma once
#include <cstdint>

namespace cohort::kernels {

struct QuantizedShape {
  int64_t n = 0, k = 0;
  int64_t group = 128;  ///< Inputs that share a scale; the last group of a row may be shorter.
  int bits = 8;         ///< 8 or 4.

  int64_t panels() const;
  int64_t groups() const { return (k + group - 1) / group; }
  int64_t data_bytes() const;  ///< Of all panels.
  int64_t num_scales() const;  ///< Floats; as many offsets where bits is 4, else none.
};

struct QuantizedMatrix {
  QuantizedShape shape;
  uint8_t* data = nullptr;
  float* scale = nullptr;
  float* offset = nullptr;  ///< Null with 8 bits.
};

/// Fills `to` from w, whose rows are ldw floats apart. Finite values only.
void quantize(const float* w, int64_t ldw, const QuantizedMatrix& to);

/// Row `row` as fp32 [k].
void dequantize_row(const QuantizedMatrix& from, int64_t row, float* out);

/// y [m, n] = x [m, k] W^T; leading dimensions in floats.
struct QuantizedProduct {
  QuantizedMatrix w;
  int64_t m = 0;
  const float* x = nullptr;
  int64_t ldx = 0;
  float* y = nullptr;
  int64_t ldy = 0;
};

/// Products whose y do not overlap; blocks of all of them shared out among the threads.
void quantized_products(const QuantizedProduct* products, int64_t count);

}  // namespace cohort::kernels
