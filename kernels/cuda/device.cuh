// clang-format off
// What every kernel source begins with. One source, two compilers: nvcc (sm_80, sm_90a) makes the
// device code, in namespace cohort::kernels::cuda; the C++ compiler makes code that runs the same
// kernels on the host, in cohort::kernels::emulated, block by block, for the tests.
//
// Writing a kernel
//   #include "kernels/cuda/device.cuh"     // and "kernels/cuda/ptx.cuh" for PTX
//   namespace cohort::kernels::COHORT_DEVICE {
//   template <class T> __global__ void twice_kernel(const T* x, int64_t n, T* y) {
//     COHORT_SHARED(float[4][32], tile);                // __shared__ float tile[4][32];
//     float4* stage = dynamic_shared<float4>();         // the launch's extra bytes, 1024-aligned
//     ...
//   }
//   void twice(const float* x, int64_t n, float* y, Stream stream) {
//     launch(twice_kernel<float>, Grid(blocks, threads, shared_bytes, stream), x, n, y);
//   }
//   }
//   - Files are C++17. kernels/cuda/*.cu are found by CMake in both builds.
//   - A header (.cuh) that the product's .cpp files read declares functions with `Stream` and `bf16`,
//     and holds no kernel code. Pieces of kernels that several sources share stand in .cuh files whose
//     body is inside #if !COHORT_ON_DEVICE || defined(__CUDACC__), like pieces.cuh.
//   - Shared memory: only the two forms above (a plain __shared__ does not compile on the host). A
//     block finds it filled with 0xff: NaN as fp32, bf16 and half, -1 as an integer. More than 48 KB
//     is asked of the driver by `launch`. Each variable is an allocation of its own on the host, so
//     AddressSanitizer sees a step beyond it.
//   - There: threadIdx, blockIdx, blockDim, gridDim; __syncthreads (_count, _or, _and); __syncwarp,
//     __shfl_*_sync, __ballot_sync, __any_sync, __all_sync, __match_any_sync, __reduce_*_sync;
//     atomics; __ldg, __ldcs, __stcs; bit and float intrinsics; vectors (float4, uint4, ...);
//     __nv_bfloat16(2), __half(2) and their conversions (host/vector_types.h lists them; there are no
//     operators on them: compute in float); min(a, b), max(a, b) on equal types. More is added to
//     host/intrinsics.h when a kernel wants it.
//   - mbarriers, TMA and wgmma of sm_90a, as far as attention wants them: hopper.cuh.
//   - Not there: __activemask, __noinline__, cooperative groups, clusters. A kernel that needs those
//     stands inside #if COHORT_ON_DEVICE and has a portable sibling of the same interface.
//
// How the host executes
//   - A thread is a fibre and runs until it synchronises. A warp intrinsic completes when all lanes of
//     its mask call the same one with the same mask; a barrier when all threads of the block are there.
//     An ended thread does not count as there: code that leaves early and then meets a barrier is an
//     error, though a device may let it pass.
//   - Blocks run one after another: none may wait for another.
//   - host::LaunchError, with launch, block, thread and line, is thrown for: a deadlock; a lane outside
//     its mask; a mask with lanes that ended, do not exist, or wait elsewhere; a shuffle from outside
//     the mask; a misaligned asynchronous copy; a launch beyond the limits.
//   - Addresses are AddressSanitizer's part, misaligned vectors UBSan's (scripts/test --asan).
//   - The stack of a thread is 250 KB.
//
// Testing (tests/kernels/*.tests.cpp with tests/kernels/device_runs.h; stream null)
//   - `host::UseSchedule use({host::Order::kReversed});`: while it lives, the highest thread that can
//     run does; kInOrder (default) takes the lowest, kRandom goes by a seed. Results must be the same
//     under all. Asynchronous copies happen at the wait in order, at once in reverse, by chance in
//     random order: a forgotten wait shows, and so does a buffer overwritten too early. Products of
//     wgmma and bulk copies do likewise; these end in any order, when nothing else can run or by chance.
//   - host::sync_sites(work) lists each barrier, warp intrinsic and copy wait that `work` passes.
//     `host::PlantFault fault(site);` makes that one do nothing, or lose a lane of its mask, while it
//     lives. faults_not_caught(run) of device_runs.h does so with each site in turn.
//   - Faults of another kind are planted in the source: `kPlanted<Fault::kTail> ? n - 1 : n`. Sources
//     that do are compiled once more, into namespace planted_tail (host/CMakeLists.txt), and
//     tests/kernels/device_planted.tests.cpp shows that each is seen.
//
// Exactness: the arithmetic is the host's. +, -, *, /, sqrt, fmaf and conversions have the device's
// bits, except where a compiler fuses a multiply and an add; exp and the approximations differ in the
// last places. mma adds its 16 products in order of k in fp32: a device's order is its own.
// clang-format on
#pragma once
#include <cstddef>
#include <cstdint>

#ifndef COHORT_PLANT_FAULT
#define COHORT_PLANT_FAULT kNone
#endif

#ifdef COHORT_HOST_EXECUTION  // ---- the C++ compiler, for the tests

#include "kernels/cuda/host/intrinsics.h"
#ifndef COHORT_DEVICE
#define COHORT_DEVICE emulated
#endif
#define COHORT_ON_DEVICE 0

namespace cohort::kernels::COHORT_DEVICE {

using Stream = struct NoStream*;
using bf16 = __nv_bfloat16;

struct Grid {
  host::LaunchShape shape;
  Grid(dim3 blocks,
       dim3 threads,
       size_t shared_bytes,
       Stream,
       const char* caller = __builtin_FUNCTION(),
       const char* file = __builtin_FILE(),
       int line = __builtin_LINE())
      : shape{blocks, threads, shared_bytes, caller, file, line} {}
};

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), const Grid& grid, Arguments... arguments) {
  auto call = [&] { kernel(static_cast<Parameters>(arguments)...); };
  host::run_grid(
      grid.shape, [](void* c) { (*static_cast<decltype(call)*>(c))(); }, &call);
}

/// Sets `bytes` of device memory to zero, in the order of the stream.
inline void clear(void* memory, size_t bytes, Stream) { std::memset(memory, 0, bytes); }

template <class T>
T* dynamic_shared() {
  return static_cast<T*>(host::dynamic_shared());
}

template <class T>
T min(T a, T b) {
  return b < a ? b : a;
}
template <class T>
T max(T a, T b) {
  return a < b ? b : a;
}

template <class T>
using SharedType = T;

}  // namespace cohort::kernels::COHORT_DEVICE

#define COHORT_SHARED(type, name)                                                        \
  auto& name = *static_cast<SharedType<type>*>(::cohort::kernels::host::shared_variable( \
      [] {                                                                               \
        static const char tag = 0;                                                       \
        return static_cast<const void*>(&tag);                                           \
      }(),                                                                               \
      sizeof(SharedType<type>),                                                          \
      128))

#else  // ---- nvcc, and the product's C++ files that call the launchers

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <stdexcept>
#include <string>
#define COHORT_DEVICE cuda
#define COHORT_ON_DEVICE 1

namespace cohort::kernels::cuda {

using Stream = cudaStream_t;
using bf16 = __nv_bfloat16;

/// Throws what the runtime reports; `what` names the call.
inline void check(cudaError_t status, const char* what) {
  if (status != cudaSuccess)
    throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(status));
}

inline void clear(void* memory, size_t bytes, Stream stream) {
  check(cudaMemsetAsync(memory, 0, bytes, stream), "clearing device memory");
}

#ifdef __CUDACC__
struct Grid {
  dim3 blocks, threads;
  size_t shared_bytes;
  Stream stream;
  const char* caller;
  Grid(dim3 blocks,
       dim3 threads,
       size_t shared_bytes,
       Stream stream,
       const char* caller = __builtin_FUNCTION())
      : blocks(blocks),
        threads(threads),
        shared_bytes(shared_bytes),
        stream(stream),
        caller(caller) {}
};

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), const Grid& grid, Arguments... arguments) {
  if (grid.shared_bytes > (48 << 10))
    check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                               cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(grid.shared_bytes)),
          grid.caller);
  // clang-format off
  kernel<<<grid.blocks, grid.threads, grid.shared_bytes, grid.stream>>>(static_cast<Parameters>(arguments)...);
  // clang-format on
  check(cudaGetLastError(), grid.caller);
}

template <class T>
__device__ T* dynamic_shared() {
  extern __shared__ __align__(1024) unsigned char cohort_dynamic_shared[];
  return reinterpret_cast<T*>(cohort_dynamic_shared);
}

template <class T>
using SharedType = T;
#define COHORT_SHARED(type, name) __shared__ __align__(128) SharedType<type> name
#endif  // __CUDACC__

}  // namespace cohort::kernels::cuda
#endif

namespace cohort::kernels::COHORT_DEVICE {

/// Faults that a test plants in the source.
enum class Fault { kNone, kTail, kBarrier, kMask, kCopyWait };
template <Fault kFault>
constexpr bool kPlanted = kFault == Fault::COHORT_PLANT_FAULT;

}  // namespace cohort::kernels::COHORT_DEVICE
