// PTX of sm_90a as small named functions, each with a twin on the host like those of ptx.cuh:
// mbarriers, bulk copies of boxes of a tensor (TMA), and the products of a warp group (wgmma). On
// the device a kernel that calls them has its body inside #if COHORT_HAS_HOPPER.
//
// Tiles of bf16 rows lie in shared memory as panels: 64 elements (128 bytes) of each row, rows one
// after another, the eight 16-byte pieces of a row permuted by the row's number modulo 8, which is
// CU_TENSOR_MAP_SWIZZLE_128B. A panel begins at a multiple of 1024 bytes.
#pragma once
#include "kernels/cuda/device.cuh"

#if !COHORT_ON_DEVICE || defined(__CUDACC__)
#if COHORT_ON_DEVICE
#include <cuda.h>
#endif

#if !COHORT_ON_DEVICE || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define COHORT_HAS_HOPPER 1
#else
#define COHORT_HAS_HOPPER 0
#endif

namespace cohort::kernels::COHORT_DEVICE {

struct alignas(8) Mbarrier {
  uint64_t word;
};

#if COHORT_ON_DEVICE

__device__ inline uint32_t shared_space(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

/// Made by one thread, before a mbarrier_init_fence by it and a __syncthreads.
__device__ inline void mbarrier_init(Mbarrier& barrier, unsigned arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_space(&barrier)),
               "r"(arrivals)
               : "memory");
}
__device__ inline void mbarrier_init_fence() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
__device__ inline void mbarrier_arrive(Mbarrier& barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_space(&barrier)) : "memory");
}
/// Arrives, and makes the phase wait for `bytes` of bulk copies too.
__device__ inline void mbarrier_arrive_expect(Mbarrier& barrier, unsigned bytes) {
  asm volatile(
      "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_space(&barrier)),
      "r"(bytes)
      : "memory");
}
/// Waits for the end of the phase of this parity: 0 for the first, third, ...; a wait for parity 1
/// at a new barrier returns at once.
__device__ inline void mbarrier_wait(Mbarrier& barrier, unsigned parity) {
  unsigned done = 0;
  while (!done)
    asm volatile(
        "{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; "
        "selp.u32 %0, 1, 0, p; }"
        : "=r"(done)
        : "r"(shared_space(&barrier)), "r"(parity)
        : "memory");
}

/// A tensor [tokens, heads, dim] of bf16 to be read in boxes [box_rows, 1, 64].
struct TensorMap {
  CUtensorMap map;
};
__device__ inline void copy_box(
    void* shared, const TensorMap& map, int column, int head, int token, Mbarrier& barrier) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%3, %4, %5}], [%2];" ::"r"(shared_space(shared)),
      "l"(&map),
      "r"(shared_space(&barrier)),
      "r"(column),
      "r"(head),
      "r"(token)
      : "memory");
}

/// Before the first product after registers of its operands or sums were written, or after a wait.
__device__ inline void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
/// Waits until at most kGroupsLeft of the newest groups are under way.
template <int kGroupsLeft>
__device__ inline void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kGroupsLeft) : "memory");
}
/// Keeps the compiler from moving these registers across: sums while products write them.
template <int N>
__device__ inline void keep_in_place(float (&d)[N][4]) {
#pragma unroll
  for (int n = 0; n < N; ++n)
#pragma unroll
    for (int r = 0; r < 4; ++r) asm volatile("" : "+f"(d[n][r])::"memory");
}
template <int N>
__device__ inline void keep_in_place(uint32_t (&a)[N][4]) {
#pragma unroll
  for (int n = 0; n < N; ++n)
#pragma unroll
    for (int r = 0; r < 4; ++r) asm volatile("" : "+r"(a[n][r])::"memory");
}

/// To be called before a wait: `value`, never below zero, and what it is made of is computed by
/// then. A store that never happens says so: ptxas keeps those in order with a wgmma_wait, which it
/// would otherwise move up before arithmetic that does not need it.
__device__ inline void finish_before_wait(float value, Mbarrier& place) {
  asm volatile(
      "{ .reg .pred p; setp.lt.f32 p, %0, 0f00000000; @p st.shared.f32 [%1], %0; }" ::"f"(value),
      "r"(shared_space(&place))
      : "memory");
}

/// Number of this warp in the block and of its group, in a form that the compiler knows to be the
/// same for all lanes.
__device__ inline int warp_of_block() {
  return __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / 32, 0);
}

/// The warps of this thread's group give up registers, or take those that others gave up.
template <int kRegisters>
__device__ inline void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ inline void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// d [64, 8 n] (+)= a [64, 16] b [16, 8 n] by the four warps of a group: warp w has rows 16 w.. of d
// and of a register a, laid out as in mma_m16n8k16 (d[j] is the eight columns from 8 j on). `a` and
// `b` are panel descriptors; b of `wgmma` is a tile of 8 n rows whose row is along k, that of
// `wgmma_across` one of 16 rows whose row is along n.
#define COHORT_SUMS(n) "+f"(d[n][0]), "+f"(d[n][1]), "+f"(d[n][2]), "+f"(d[n][3])
// clang-format off
__device__ inline void wgmma(float (&d)[8][4],
                             uint64_t a,
                             uint64_t b,
                             bool accumulate) {
  asm volatile(
      "{ .reg .pred p; setp.ne.b32 p, %34, 0; "
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {%0, %1, %2, %3, %4, %5, %6, "
      "%7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, "
      "%24, %25, %26, %27, %28, %29, %30, %31}, %32, %33, p, 1, 1, 0, 0; }"
      : COHORT_SUMS(0),
        COHORT_SUMS(1),
        COHORT_SUMS(2),
        COHORT_SUMS(3),
        COHORT_SUMS(4),
        COHORT_SUMS(5),
        COHORT_SUMS(6),
        COHORT_SUMS(7)
      : "l"(a), "l"(b), "r"(static_cast<int>(accumulate)));
}
__device__ inline void wgmma(float (&d)[16][4],
                             uint64_t a,
                             uint64_t b,
                             bool accumulate) {
  asm volatile(
      "{ .reg .pred p; setp.ne.b32 p, %66, 0; "
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {%0, %1, %2, %3, %4, %5, %6, "
      "%7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, "
      "%24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, "
      "%40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, "
      "%56, %57, %58, %59, %60, %61, %62, %63}, %64, %65, p, 1, 1, 0, 0; }"
      : COHORT_SUMS(0),
        COHORT_SUMS(1),
        COHORT_SUMS(2),
        COHORT_SUMS(3),
        COHORT_SUMS(4),
        COHORT_SUMS(5),
        COHORT_SUMS(6),
        COHORT_SUMS(7),
        COHORT_SUMS(8),
        COHORT_SUMS(9),
        COHORT_SUMS(10),
        COHORT_SUMS(11),
        COHORT_SUMS(12),
        COHORT_SUMS(13),
        COHORT_SUMS(14),
        COHORT_SUMS(15)
      : "l"(a), "l"(b), "r"(static_cast<int>(accumulate)));
}
__device__ inline void wgmma_across(float (&d)[8][4], const uint32_t (&a)[4], uint64_t b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {%0, %1, %2, %3, %4, %5, %6, "
      "%7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, "
      "%24, %25, %26, %27, %28, %29, %30, %31}, {%32, %33, %34, %35}, %36, 1, 1, 1, 1;"
      : COHORT_SUMS(0),
        COHORT_SUMS(1),
        COHORT_SUMS(2),
        COHORT_SUMS(3),
        COHORT_SUMS(4),
        COHORT_SUMS(5),
        COHORT_SUMS(6),
        COHORT_SUMS(7)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
__device__ inline void wgmma_across(float (&d)[16][4], const uint32_t (&a)[4], uint64_t b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {%0, %1, %2, %3, %4, %5, %6, "
      "%7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, "
      "%24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, "
      "%40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, "
      "%56, %57, %58, %59, %60, %61, %62, %63}, {%64, %65, %66, %67}, %68, 1, 1, 1, 1;"
      : COHORT_SUMS(0),
        COHORT_SUMS(1),
        COHORT_SUMS(2),
        COHORT_SUMS(3),
        COHORT_SUMS(4),
        COHORT_SUMS(5),
        COHORT_SUMS(6),
        COHORT_SUMS(7),
        COHORT_SUMS(8),
        COHORT_SUMS(9),
        COHORT_SUMS(10),
        COHORT_SUMS(11),
        COHORT_SUMS(12),
        COHORT_SUMS(13),
        COHORT_SUMS(14),
        COHORT_SUMS(15)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
__device__ inline void wgmma_across(float (&d)[24][4], const uint32_t (&a)[4], uint64_t b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n192k16.f32.bf16.bf16 {%0, %1, %2, %3, %4, %5, %6, "
      "%7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, "
      "%24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, "
      "%40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, "
      "%56, %57, %58, %59, %60, %61, %62, %63, %64, %65, %66, %67, %68, %69, %70, %71, "
      "%72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, %84, %85, %86, %87, "
      "%88, %89, %90, %91, %92, %93, %94, %95}, {%96, %97, %98, %99}, %100, 1, 1, 1, 1;"
      : COHORT_SUMS(0),
        COHORT_SUMS(1),
        COHORT_SUMS(2),
        COHORT_SUMS(3),
        COHORT_SUMS(4),
        COHORT_SUMS(5),
        COHORT_SUMS(6),
        COHORT_SUMS(7),
        COHORT_SUMS(8),
        COHORT_SUMS(9),
        COHORT_SUMS(10),
        COHORT_SUMS(11),
        COHORT_SUMS(12),
        COHORT_SUMS(13),
        COHORT_SUMS(14),
        COHORT_SUMS(15),
        COHORT_SUMS(16),
        COHORT_SUMS(17),
        COHORT_SUMS(18),
        COHORT_SUMS(19),
        COHORT_SUMS(20),
        COHORT_SUMS(21),
        COHORT_SUMS(22),
        COHORT_SUMS(23)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
// clang-format on
#undef COHORT_SUMS

#else  // ---- the twins

#define COHORT_HERE const host::Where& where = host::Where::current()
inline uint32_t shared_space(const void* p) { return host::shared_offset(p); }
inline void mbarrier_init(Mbarrier& barrier, unsigned arrivals) {
  host::mbarrier_init(&barrier, arrivals);
}
inline void mbarrier_init_fence() {}
inline void mbarrier_arrive(Mbarrier& barrier, COHORT_HERE) {
  host::mbarrier_arrive(&barrier, 0, where);
}
inline void mbarrier_arrive_expect(Mbarrier& barrier, unsigned bytes, COHORT_HERE) {
  host::mbarrier_arrive(&barrier, bytes, where);
}
inline void mbarrier_wait(Mbarrier& barrier, unsigned parity, COHORT_HERE) {
  host::mbarrier_wait(&barrier, parity, where);
}

struct TensorMap {
  host::BoxMap map;
};
inline void copy_box(
    void* shared, const TensorMap& map, int column, int head, int token, Mbarrier& barrier) {
  host::copy_box(shared, map.map, column, head, token, &barrier);
}

template <class Finish>
void of_warp(const char* name, Finish, const host::Where& where) {
  host::warp_collective(
      name, 0xffffffffu, nullptr, [](void* const*, unsigned) { Finish{}(); }, where);
}
inline void wgmma_fence(COHORT_HERE) {
  of_warp(
      "wgmma_fence", [] { host::fence_products(); }, where);
}
inline void wgmma_commit(COHORT_HERE) {
  of_warp(
      "wgmma_commit", [] { host::commit_products(); }, where);
}
template <int kGroupsLeft>
void wgmma_wait(COHORT_HERE) {
  of_warp(
      "wgmma_wait", [] { host::wait_for_products(kGroupsLeft); }, where);
}
template <class Registers>
void keep_in_place(Registers&) {}
inline void finish_before_wait(float, Mbarrier&) {}
inline int warp_of_block() { return static_cast<int>(threadIdx.x) / 32; }
template <int kRegisters>
void give_registers() {}
template <int kRegisters>
void take_registers() {}

struct ProductOfLane {
  float* d;
  const uint32_t* a;
  host::GroupProduct common;
};
inline void multiply(ProductOfLane mine, const host::Where& where) {
  host::warp_collective(
      "wgmma",
      0xffffffffu,
      &mine,
      [](void* const* lanes, unsigned of_lanes) {
        if (of_lanes != 0xffffffffu)
          throw host::LaunchError("wgmma: wants all 32 lanes of the warp");
        host::GroupProduct product = static_cast<const ProductOfLane*>(lanes[0])->common;
        for (int i = 0; i < 32; ++i) {
          const auto& of = *static_cast<const ProductOfLane*>(lanes[i]);
          if (of.common.a_descriptor != product.a_descriptor ||
              of.common.b_descriptor != product.b_descriptor ||
              of.common.accumulate != product.accumulate)
            throw host::LaunchError("wgmma: lanes of a warp give different operands");
          product.d[i] = of.d;
          product.a[i] = of.a;
        }
        host::issue_product(product);
      },
      where);
}
template <int N>
void wgmma(float (&d)[N][4], uint64_t a, uint64_t b, bool accumulate, COHORT_HERE) {
  multiply({d[0], nullptr, {8 * N, accumulate, false, {}, {}, a, b}}, where);
}
template <int N>
void wgmma_across(float (&d)[N][4], const uint32_t (&a)[4], uint64_t b, COHORT_HERE) {
  multiply({d[0], a, {8 * N, true, true, {}, {}, 0, b}}, where);
}
#undef COHORT_HERE

#endif

/// The descriptor of a tile in panels of `rows` rows: from row `row` on, a multiple of 8, and the
/// 16 columns from 16 k on. Groups of eight rows are 1024 bytes apart, panels rows x 128.
__device__ inline uint64_t panel_descriptor(const bf16* tile, int rows, int row, int k) {
  const uint32_t start =
      shared_space(tile) + static_cast<uint32_t>(k / 4 * rows * 128 + row * 128 + k % 4 * 32);
  return uint64_t{1} << 62 | uint64_t{1024 >> 4} << 32 |
         static_cast<uint64_t>(static_cast<uint32_t>(rows) * 128 >> 4) << 16 | start >> 4;
}

/// For a launch; `tensor` is device memory, aligned to 16 bytes, dim a multiple of 64.
inline TensorMap tensor_map(
    const bf16* tensor, int64_t tokens, int64_t heads, int64_t dim, int box_rows) {
#if COHORT_ON_DEVICE
  static const auto encode = [] {
    void* entry = nullptr;
    cudaDriverEntryPointQueryResult found{};
    check(cudaGetDriverEntryPointByVersion(
              "cuTensorMapEncodeTiled", &entry, 12000, cudaEnableDefault, &found),
          "looking for cuTensorMapEncodeTiled");
    if (found != cudaDriverEntryPointSuccess)
      throw std::runtime_error(
          "the driver has no cuTensorMapEncodeTiled: it is older than CUDA 12");
    return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(entry);
  }();
  const auto size = [](int64_t n) { return static_cast<cuuint64_t>(n); };
  const cuuint64_t sizes[] = {size(dim), size(heads), size(tokens)};
  const cuuint64_t strides[] = {size(dim * 2), size(heads * dim * 2)};
  const cuuint32_t box[] = {64, 1, static_cast<cuuint32_t>(box_rows)}, steps[] = {1, 1, 1};
  TensorMap made;
  const CUresult status = encode(&made.map,
                                 CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
                                 3,
                                 const_cast<bf16*>(tensor),
                                 sizes,
                                 strides,
                                 box,
                                 steps,
                                 CU_TENSOR_MAP_INTERLEAVE_NONE,
                                 CU_TENSOR_MAP_SWIZZLE_128B,
                                 CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                                 CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (status != CUDA_SUCCESS)
    throw std::runtime_error("cuTensorMapEncodeTiled failed with status " + std::to_string(status));
  return made;
#else
  return {{tensor, tokens, heads, dim, box_rows}};
#endif
}

/// Blocks that run at a time when each fills a multiprocessor.
inline unsigned multiprocessors() {
#if COHORT_ON_DEVICE
  int device = 0, count = 0;
  check(cudaGetDevice(&device), "asking for the device");
  check(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device),
        "counting multiprocessors");
  return static_cast<unsigned>(count);
#else
  return 3;
#endif
}

/// Whether the current device can run what this header names: its code is for sm_90a alone.
inline bool device_is_hopper() {
#if COHORT_ON_DEVICE
  int device = 0, major = 0, minor = 0;
  check(cudaGetDevice(&device), "asking for the device");
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device),
        "asking for the compute capability");
  check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device),
        "asking for the compute capability");
  return major == 9 && minor == 0;
#else
  return true;
#endif
}

}  // namespace cohort::kernels::COHORT_DEVICE
#endif
