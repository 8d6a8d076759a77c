// CUDA's built-in variables and functions for the C++ compiler, as far as the kernels use them.
// Warp intrinsics and barriers synchronise as device.cuh says; the rest is arithmetic.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "kernels/cuda/host/execution.h"

// The names are CUDA's.
// NOLINTBEGIN(bugprone-reserved-identifier)

#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) alignas(n)

#define threadIdx (::cohort::kernels::host::current->index)
#define blockIdx (::cohort::kernels::host::current->block->index)
#define blockDim (::cohort::kernels::host::current->block->threads)
#define gridDim (::cohort::kernels::host::current->block->blocks)
inline constexpr int warpSize = 32;

// ---- the block ----
#define COHORT_HERE \
  const cohort::kernels::host::Where& where = cohort::kernels::host::Where::current()

inline void __syncthreads(COHORT_HERE) {
  cohort::kernels::host::block_barrier(0, 0, false, "__syncthreads", where);
}
inline int __syncthreads_count(int predicate, COHORT_HERE) {
  return cohort::kernels::host::block_barrier(0, 0, predicate, "__syncthreads_count", where);
}
inline int __syncthreads_or(int predicate, COHORT_HERE) {
  return cohort::kernels::host::block_barrier(0, 0, predicate, "__syncthreads_or", where) > 0;
}
inline int __syncthreads_and(int predicate, COHORT_HERE) {
  return cohort::kernels::host::block_barrier(0, 0, !predicate, "__syncthreads_and", where) == 0;
}
inline void __threadfence() {}
inline void __threadfence_block() {}

// ---- the warp ----
namespace cohort::kernels::host {

template <class T>
struct Shuffle {
  T value, result;
  int source;  ///< Lane to read; itself where the intrinsic keeps the own value.
};

template <class T>
T shuffle(const char* name, unsigned mask, T value, int source, const Where& where) {
  Shuffle<T> mine{value, value, source};
  warp_collective(
      name,
      mask,
      &mine,
      [](void* const* lanes, unsigned of) {
        for (unsigned i = 0; i < 32; ++i) {
          if (!(of >> i & 1)) continue;
          auto& to = *static_cast<Shuffle<T>*>(lanes[i]);
          if (!(of >> to.source & 1))
            throw LaunchError("lane " + std::to_string(i) + " shuffles from lane " +
                              std::to_string(to.source) + ", which is not in the mask");
          to.result = static_cast<const Shuffle<T>*>(lanes[to.source])->value;
        }
      },
      where);
  return mine.result;
}

template <class T, class Reduce>
T reduce(const char* name, unsigned mask, T value, const Where& where) {
  T mine = value;
  warp_collective(
      name,
      mask,
      &mine,
      [](void* const* lanes, unsigned of) {
        T all{};
        bool first = true;
        for (unsigned i = 0; i < 32; ++i)
          if (of >> i & 1) {
            const T v = *static_cast<const T*>(lanes[i]);
            all = first ? v : Reduce{}(all, v);
            first = false;
          }
        for (unsigned i = 0; i < 32; ++i)
          if (of >> i & 1) *static_cast<T*>(lanes[i]) = all;
      },
      where);
  return mine;
}

struct Most {
  template <class T>
  T operator()(T a, T b) const {
    return a > b ? a : b;
  }
};
struct Least {
  template <class T>
  T operator()(T a, T b) const {
    return a < b ? a : b;
  }
};

inline unsigned ballot(const char* name, unsigned mask, bool predicate, const Where& where) {
  return reduce<unsigned, std::bit_or<>>(name, mask, predicate ? 1u << current->lane : 0, where);
}

template <class To, class From>
To bits_as(From from) {
  return std::bit_cast<To>(from);
}

}  // namespace cohort::kernels::host

inline void __syncwarp(unsigned mask = 0xffffffffu, COHORT_HERE) {
  cohort::kernels::host::warp_collective(
      "__syncwarp", mask, nullptr, [](void* const*, unsigned) {}, where);
}
template <class T>
T __shfl_sync(unsigned mask, T value, int lane, int width = 32, COHORT_HERE) {
  const int own = static_cast<int>(cohort::kernels::host::current->lane);
  return cohort::kernels::host::shuffle(
      "__shfl_sync", mask, value, (own & ~(width - 1)) | (lane & (width - 1)), where);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int distance, int width = 32, COHORT_HERE) {
  const int own = static_cast<int>(cohort::kernels::host::current->lane);
  const int from = own ^ distance;
  return cohort::kernels::host::shuffle(
      "__shfl_xor_sync", mask, value, from < (own | (width - 1)) + 1 ? from : own, where);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned distance, int width = 32, COHORT_HERE) {
  const int own = static_cast<int>(cohort::kernels::host::current->lane);
  const int from = own - static_cast<int>(distance);
  return cohort::kernels::host::shuffle(
      "__shfl_up_sync", mask, value, from >= (own & ~(width - 1)) ? from : own, where);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned distance, int width = 32, COHORT_HERE) {
  const int own = static_cast<int>(cohort::kernels::host::current->lane);
  const int from = own + static_cast<int>(distance);
  return cohort::kernels::host::shuffle(
      "__shfl_down_sync", mask, value, from <= (own | (width - 1)) ? from : own, where);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, COHORT_HERE) {
  return cohort::kernels::host::ballot("__ballot_sync", mask, predicate, where);
}
inline int __any_sync(unsigned mask, int predicate, COHORT_HERE) {
  return cohort::kernels::host::ballot("__any_sync", mask, predicate, where) != 0;
}
inline int __all_sync(unsigned mask, int predicate, COHORT_HERE) {
  return cohort::kernels::host::ballot("__all_sync", mask, !predicate, where) == 0;
}
template <class T>
unsigned __match_any_sync(unsigned mask, T value, COHORT_HERE) {
  struct Match {
    T value;
    unsigned result;
  } mine{value, 0};
  cohort::kernels::host::warp_collective(
      "__match_any_sync",
      mask,
      &mine,
      [](void* const* lanes, unsigned of) {
        for (unsigned i = 0; i < 32; ++i)
          for (unsigned j = 0; j < 32; ++j)
            if ((of >> i & 1) && (of >> j & 1) &&
                static_cast<Match*>(lanes[i])->value == static_cast<Match*>(lanes[j])->value)
              static_cast<Match*>(lanes[i])->result |= 1u << j;
      },
      where);
  return mine.result;
}
template <class T>
T __reduce_add_sync(unsigned mask, T value, COHORT_HERE) {
  static_assert(std::is_integral_v<T> && sizeof(T) == 4);
  return cohort::kernels::host::reduce<T, std::plus<>>("__reduce_add_sync", mask, value, where);
}
template <class T>
T __reduce_max_sync(unsigned mask, T value, COHORT_HERE) {
  static_assert(std::is_integral_v<T> && sizeof(T) == 4);
  return cohort::kernels::host::reduce<T, cohort::kernels::host::Most>(
      "__reduce_max_sync", mask, value, where);
}
template <class T>
T __reduce_min_sync(unsigned mask, T value, COHORT_HERE) {
  static_assert(std::is_integral_v<T> && sizeof(T) == 4);
  return cohort::kernels::host::reduce<T, cohort::kernels::host::Least>(
      "__reduce_min_sync", mask, value, where);
}

// ---- memory ----
template <class T>
T __ldg(const T* p) {
  return *p;
}
template <class T>
T __ldcs(const T* p) {
  return *p;
}
template <class T>
T __ldcg(const T* p) {
  return *p;
}
template <class T>
void __stcs(T* p, T value) {
  *p = value;
}
template <class T>
void __stcg(T* p, T value) {
  *p = value;
}
// Fibres switch nowhere inside these, so they are atomic.
template <class T>
T atomicAdd(T* p, std::type_identity_t<T> value) {
  const T before = *p;
  *p = before + value;
  return before;
}
template <class T>
T atomicSub(T* p, std::type_identity_t<T> value) {
  const T before = *p;
  *p = before - value;
  return before;
}
template <class T>
T atomicMax(T* p, std::type_identity_t<T> value) {
  const T before = *p;
  if (value > before) *p = value;
  return before;
}
template <class T>
T atomicMin(T* p, std::type_identity_t<T> value) {
  const T before = *p;
  if (value < before) *p = value;
  return before;
}
template <class T>
T atomicOr(T* p, std::type_identity_t<T> value) {
  const T before = *p;
  *p = before | value;
  return before;
}
template <class T>
T atomicAnd(T* p, std::type_identity_t<T> value) {
  const T before = *p;
  *p = before & value;
  return before;
}
template <class T>
T atomicExch(T* p, std::type_identity_t<T> value) {
  const T before = *p;
  *p = value;
  return before;
}
template <class T>
T atomicCAS(T* p, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  const T before = *p;
  if (before == expected) *p = value;
  return before;
}

// ---- arithmetic ----
inline uint32_t __float_as_uint(float x) { return std::bit_cast<uint32_t>(x); }
inline float __uint_as_float(uint32_t x) { return std::bit_cast<float>(x); }
inline int32_t __float_as_int(float x) { return std::bit_cast<int32_t>(x); }
inline float __int_as_float(int32_t x) { return std::bit_cast<float>(x); }
inline int __popc(unsigned x) { return std::popcount(x); }
inline int __popcll(unsigned long long x) { return std::popcount(x); }
inline int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
inline int __clzll(long long x) { return std::countl_zero(static_cast<unsigned long long>(x)); }
inline int __ffs(int x) { return x ? std::countr_zero(static_cast<unsigned>(x)) + 1 : 0; }
inline unsigned __brev(unsigned x) {
  unsigned out = 0;
  for (int i = 0; i < 32; ++i) out |= (x >> i & 1) << (31 - i);
  return out;
}
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fsqrt_rn(float x) { return std::sqrt(x); }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
// Never contracted into a multiply-add, as on the device.
inline __attribute__((noinline)) float __fmul_rn(float a, float b) { return a * b; }
inline __attribute__((noinline)) float __fadd_rn(float a, float b) { return a + b; }
inline __attribute__((noinline)) float __fsub_rn(float a, float b) { return a - b; }
inline float __saturatef(float x) { return x > 0 ? (x < 1 ? x : 1.0f) : 0.0f; }

#undef COHORT_HERE
// NOLINTEND(bugprone-reserved-identifier)
