// 64-byte vectors for the CPU kernels: GCC's vector extension, which becomes AVX-512 where the
// target has it and pairs or quadruples of smaller registers elsewhere. The lanes are the same on
// every target, and so is the order in which `sum` adds them: a result does not depend on how
// memory is aligned or on how a compiler chose to split a loop.
#pragma once
#include <bit>
#include <cstdint>
#include <cstring>
#include <type_traits>

// Without AVX-512, GCC warns that returning such vectors has changed between its versions; every
// function here is inlined, so nothing is returned. (Its remark on passing them by value has no
// switch: they are passed by reference.)
#pragma GCC diagnostic ignored "-Wpsabi"
#define COHORT_INLINE __attribute__((always_inline)) inline
#define COHORT_LAMBDA __attribute__((always_inline))

namespace cohort::kernels {

/// Storage of a bfloat16: the upper half of a float. Layout of c10::BFloat16.
struct bf16 {
  uint16_t bits;
};

/// What sums over elements of T are kept in.
template <class T>
using Sum = std::conditional_t<std::is_same_v<T, double>, double, float>;

template <class A>
struct VectorOf {
  typedef A type __attribute__((vector_size(64)));
};
template <>
struct VectorOf<bf16> {};  // is computed with as float
/// Vector<float>: 16 lanes, Vector<double>: 8.
template <class A>
using Vector = typename VectorOf<A>::type;
template <class A>
inline constexpr int kLanes = 64 / sizeof(A);

COHORT_INLINE float to_sum(float x) { return x; }
COHORT_INLINE double to_sum(double x) { return x; }
COHORT_INLINE float to_sum(bf16 x) { return std::bit_cast<float>(uint32_t{x.bits} << 16); }

/// Rounds to nearest, ties to even; a NaN stays one.
COHORT_INLINE void from_sum(float x, float& out) { out = x; }
COHORT_INLINE void from_sum(double x, double& out) { out = x; }
COHORT_INLINE void from_sum(float x, bf16& out) {
  const uint32_t u = std::bit_cast<uint32_t>(x);
  out.bits =
      x != x ? uint16_t{0x7fc0} : static_cast<uint16_t>((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}

template <class A>
COHORT_INLINE Vector<A> splat(A x) {
  return Vector<A>{} + x;
}

template <class A>
COHORT_INLINE Vector<A> load(const A* p) {
  Vector<A> v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}
COHORT_INLINE Vector<float> load(const bf16* p) {
  typedef uint16_t Half __attribute__((vector_size(32)));
  typedef uint32_t Word __attribute__((vector_size(64)));
  Half h;
  std::memcpy(&h, p, sizeof(h));
  const Word w = __builtin_convertvector(h, Word) << 16;
  return reinterpret_cast<Vector<float>>(w);
}

template <class A>
COHORT_INLINE void store(A* p, const Vector<A>& v) {
  std::memcpy(p, &v, sizeof(v));
}
COHORT_INLINE void store(bf16* p, const Vector<float>& v) {
  typedef uint16_t Half __attribute__((vector_size(32)));
  typedef uint32_t Word __attribute__((vector_size(64)));
  const Word w = reinterpret_cast<Word>(v);
  Word r = (w + 0x7fff + ((w >> 16) & 1)) >> 16;
  r = v != v ? Word{} + 0x7fc0 : r;
  const Half h = __builtin_convertvector(r, Half);
  std::memcpy(p, &h, sizeof(h));
}

/// The first n < kLanes elements; zeros beyond.
template <class T>
COHORT_INLINE Vector<Sum<T>> load_some(const T* p, int64_t n) {
  Sum<T> lanes[kLanes<Sum<T>>] = {};
  for (int64_t i = 0; i < n; ++i) lanes[i] = to_sum(p[i]);
  return load(lanes);
}
template <class T>
COHORT_INLINE void store_some(T* p, const Vector<Sum<T>>& v, int64_t n) {
  Sum<T> lanes[kLanes<Sum<T>>];
  store(lanes, v);
  for (int64_t i = 0; i < n; ++i) from_sum(lanes[i], p[i]);
}

/// A number of lanes known to be all of them.
template <class A>
using AllLanes = std::integral_constant<int64_t, kLanes<A>>;

/// body(i, n) on pieces [i, i + n) of [0, count): n is AllLanes except, at the end, a smaller
/// number.
template <class A, class Body>
COHORT_INLINE void each_vector(int64_t count, const Body& body) {
  int64_t i = 0;
  for (; i + kLanes<A> <= count; i += kLanes<A>) body(i, AllLanes<A>{});
  if (i < count) body(i, count - i);
}
template <class T>
COHORT_INLINE Vector<Sum<T>> load(const T* p, AllLanes<Sum<T>>) {
  return load(p);
}
template <class T>
COHORT_INLINE Vector<Sum<T>> load(const T* p, int64_t n) {
  return load_some(p, n);
}
template <class T>
COHORT_INLINE void store(T* p, const Vector<Sum<T>>& v, AllLanes<Sum<T>>) {
  store(p, v);
}
template <class T>
COHORT_INLINE void store(T* p, const Vector<Sum<T>>& v, int64_t n) {
  store_some(p, v, n);
}

/// The lanes of v with lane i and lane i ^ distance exchanged; distance a power of two.
template <class A>
COHORT_INLINE Vector<A> exchanged_lanes(const Vector<A>& v, int distance) {
#ifdef __clang__  // which has no shuffle by a vector of lanes
  Vector<A> out;
  for (int i = 0; i < kLanes<A>; ++i) out[i] = v[i ^ distance];
  return out;
#else
  typedef std::conditional_t<sizeof(A) == 4, int32_t, int64_t> Lane;
  typedef Lane Lanes __attribute__((vector_size(64)));
  Lanes lane;
  for (int i = 0; i < kLanes<A>; ++i) lane[i] = static_cast<Lane>(i ^ distance);
  return __builtin_shuffle(v, lane);
#endif
}
COHORT_INLINE Vector<float> exchanged(const Vector<float>& v, int distance) {
  return exchanged_lanes<float>(v, distance);
}
COHORT_INLINE Vector<double> exchanged(const Vector<double>& v, int distance) {
  return exchanged_lanes<double>(v, distance);
}

/// Sum over lanes, always in the same order: halves onto each other.
template <class A>
COHORT_INLINE A sum_of(const Vector<A>& lanes) {
  Vector<A> v = lanes;
#pragma GCC unroll 4
  for (int half = kLanes<A> / 2; half > 0; half /= 2) v += exchanged(v, half);
  return v[0];
}
template <class A>
COHORT_INLINE A max_of(const Vector<A>& lanes) {
  Vector<A> v = lanes;
#pragma GCC unroll 4
  for (int half = kLanes<A> / 2; half > 0; half /= 2) {
    const Vector<A> other = exchanged(v, half);
    v = v < other ? other : v;
  }
  return v[0];
}

/// e^x by 2^n e^r, |r| <= ln2 / 2, with the Taylor polynomial of e^r: relative error below 2 ulp. 0
/// where the result is not a normal number, infinity above 88.3 (fp32) or 709.4 (fp64), NaN of NaN.
COHORT_INLINE Vector<float> exp_of(const Vector<float>& argument) {
  typedef int32_t Int __attribute__((vector_size(64)));
  constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  constexpr float kLeast = -87.33f;
  const auto tiny = argument < kLeast;
  Vector<float> x = tiny ? Vector<float>{} + kLeast : argument;
  x = x > 89.0f ? Vector<float>{} + 89.0f : x;
  const Vector<float> t = x * 1.44269504f + kMagic;
  const Vector<float> n = t - kMagic;
  Vector<float> r = x - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  Vector<float> p = r * (1.0f / 5040) + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const Int scale = (reinterpret_cast<Int>(t) - std::bit_cast<int32_t>(kMagic) + 127) << 23;
  return tiny ? Vector<float>{} : p * reinterpret_cast<Vector<float>>(scale);
}
COHORT_INLINE Vector<double> exp_of(const Vector<double>& argument) {
  typedef int64_t Int __attribute__((vector_size(64)));
  constexpr double kMagic = 6755399441055744.0;  // 1.5 * 2^52
  constexpr double kLeast = -708.39;
  const auto tiny = argument < kLeast;
  Vector<double> x = tiny ? Vector<double>{} + kLeast : argument;
  x = x > 710.0 ? Vector<double>{} + 710.0 : x;
  const Vector<double> t = x * 1.4426950408889634 + kMagic;
  const Vector<double> n = t - kMagic;
  Vector<double> r = x - n * 0.693145751953125;  // 17 bits of ln 2: n times it is exact
  r = r - n * 1.4286068203094172321e-6;
  constexpr double kInverse[] = {1.0 / 6227020800,
                                 1.0 / 479001600,
                                 1.0 / 39916800,
                                 1.0 / 3628800,
                                 1.0 / 362880,
                                 1.0 / 40320,
                                 1.0 / 5040,
                                 1.0 / 720,
                                 1.0 / 120,
                                 1.0 / 24,
                                 1.0 / 6,
                                 1.0 / 2,
                                 1.0,
                                 1.0};
  Vector<double> p = Vector<double>{} + kInverse[0];
#pragma GCC unroll 16
  for (int i = 1; i < 14; ++i) p = p * r + kInverse[i];
  const Int scale = (reinterpret_cast<Int>(t) - std::bit_cast<int64_t>(kMagic) + 1023) << 52;
  return tiny ? Vector<double>{} : p * reinterpret_cast<Vector<double>>(scale);
}

}  // namespace cohort::kernels
