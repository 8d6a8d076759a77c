// CUDA's small vectors, bfloat16 and half for the C++ compiler: the same names, sizes, alignment
// and rounding as in vector_types.h, cuda_bf16.h and cuda_fp16.h, as far as the kernels use them.
#pragma once
#include <bit>
#include <cstdint>

// The names are CUDA's.
// NOLINTBEGIN(bugprone-reserved-identifier)

#define COHORT_VECTOR(Name, Element, bytes)                                      \
  struct alignas(2 * bytes) Name##2 {                                            \
    Element x, y;                                                                \
  };                                                                             \
  struct Name##3 {                                                               \
    Element x, y, z;                                                             \
  };                                                                             \
  struct alignas(4 * bytes < 16 ? 4 * bytes : 16) Name##4 {                      \
    Element x, y, z, w;                                                          \
  };                                                                             \
  constexpr Name##2 make_##Name##2(Element x, Element y) { return {x, y}; }      \
  constexpr Name##4 make_##Name##4(Element x, Element y, Element z, Element w) { \
    return {x, y, z, w};                                                         \
  }
COHORT_VECTOR(char, signed char, 1)
COHORT_VECTOR(uchar, unsigned char, 1)
COHORT_VECTOR(short, int16_t, 2)
COHORT_VECTOR(ushort, uint16_t, 2)
COHORT_VECTOR(int, int32_t, 4)
COHORT_VECTOR(uint, uint32_t, 4)
COHORT_VECTOR(float, float, 4)
COHORT_VECTOR(double, double, 8)
COHORT_VECTOR(longlong, long long, 8)
COHORT_VECTOR(ulonglong, unsigned long long, 8)
#undef COHORT_VECTOR

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

/// Upper half of a float.
struct __nv_bfloat16 {
  uint16_t bits;
};
struct alignas(4) __nv_bfloat162 {
  __nv_bfloat16 x, y;
};
struct __half {
  uint16_t bits;
};
struct alignas(4) __half2 {
  __half x, y;
};

inline float __bfloat162float(__nv_bfloat16 h) {
  return std::bit_cast<float>(uint32_t{h.bits} << 16);
}
/// Nearest, ties to even; every NaN becomes 0x7fff, as on the device.
inline __nv_bfloat16 __float2bfloat16_rn(float f) {
  const uint32_t u = std::bit_cast<uint32_t>(f);
  return {f != f ? uint16_t{0x7fff} : static_cast<uint16_t>((u + 0x7fff + ((u >> 16) & 1)) >> 16)};
}
inline __nv_bfloat16 __float2bfloat16(float f) { return __float2bfloat16_rn(f); }
inline uint16_t __bfloat16_as_ushort(__nv_bfloat16 h) { return h.bits; }
inline __nv_bfloat16 __ushort_as_bfloat16(uint16_t u) { return {u}; }
inline __nv_bfloat162 __halves2bfloat162(__nv_bfloat16 x, __nv_bfloat16 y) { return {x, y}; }
inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) {
  return {__float2bfloat16_rn(x), __float2bfloat16_rn(y)};
}
inline __nv_bfloat162 __float22bfloat162_rn(float2 f) { return __floats2bfloat162_rn(f.x, f.y); }
inline float2 __bfloat1622float2(__nv_bfloat162 h) {
  return {__bfloat162float(h.x), __bfloat162float(h.y)};
}
inline float __low2float(__nv_bfloat162 h) { return __bfloat162float(h.x); }
inline float __high2float(__nv_bfloat162 h) { return __bfloat162float(h.y); }

inline float __half2float(__half h) {
  const uint32_t sign = uint32_t{h.bits} >> 15 << 31, exponent = h.bits >> 10 & 31,
                 mantissa = h.bits & 1023;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | mantissa << 13);
  if (exponent > 0) return std::bit_cast<float>(sign | (exponent + 112) << 23 | mantissa << 13);
  const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
  return sign ? -magnitude : magnitude;
}
inline __half __float2half_rn(float f) {
  const uint32_t u = std::bit_cast<uint32_t>(f), magnitude = u & 0x7fffffffu;
  const auto sign = static_cast<uint16_t>(u >> 16 & 0x8000u);
  if (magnitude > 0x7f800000u) return {0x7fff};
  if (magnitude >= 0x477ff000u) return {static_cast<uint16_t>(sign | 0x7c00)};  // rounds to 65536
  if (magnitude < 0x38800000u) {
    // Below 2^-14: adding 1/2 leaves the multiple of 2^-24 in the low bits, rounded to even.
    const float sum = std::bit_cast<float>(magnitude) + 0.5f;
    return {static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(sum) - 0x3f000000u))};
  }
  const uint32_t rounded = magnitude + 0xfff + (magnitude >> 13 & 1);
  return {static_cast<uint16_t>(sign | ((rounded >> 13) - (112u << 10)))};
}
inline __half __float2half(float f) { return __float2half_rn(f); }
inline uint16_t __half_as_ushort(__half h) { return h.bits; }
inline __half __ushort_as_half(uint16_t u) { return {u}; }
inline __half2 __floats2half2_rn(float x, float y) {
  return {__float2half_rn(x), __float2half_rn(y)};
}
inline float2 __half22float2(__half2 h) { return {__half2float(h.x), __half2float(h.y)}; }
// NOLINTEND(bugprone-reserved-identifier)
