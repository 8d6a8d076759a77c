// The PTX that the kernels use, as small named functions; each has a portable twin that computes
// the same on the host. Names follow the PTX ISA. Where a twin synchronises (mma, ldmatrix,
// barriers), all 32 lanes of the warp must call it together, as on the device.
#pragma once
#include "kernels/cuda/device.cuh"

#if !COHORT_ON_DEVICE || defined(__CUDACC__)
namespace cohort::kernels::COHORT_DEVICE {

#if COHORT_ON_DEVICE

__device__ inline uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

/// 16 bytes from global to shared memory, behind the thread's back, past the first-level cache.
__device__ inline void copy_async(void* shared, const void* global) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(shared)),
               "l"(global)
               : "memory");
}
/// The same; zeros if not `valid`, and then `global` is not read.
__device__ inline void copy_async_or_zero(void* shared, const void* global, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)),
               "l"(global),
               "r"(valid ? 16 : 0)
               : "memory");
}
/// Closes a group of this thread's copies.
__device__ inline void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/// Waits until at most kGroupsLeft of this thread's newest groups are under way. Other threads see
/// the bytes after a barrier.
template <int kGroupsLeft>
__device__ inline void copy_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kGroupsLeft) : "memory");
}

/// d [16, 8] += a [16, 16] b [16, 8], bf16 products and fp32 sums. With g = lane / 4, i = lane % 4,
/// two bf16 a register, the lower half first:
///   a[0] = A(g, 2i..), a[1] = A(g + 8, 2i..), a[2] = A(g, 2i + 8..), a[3] = A(g + 8, 2i + 8..)
///   b[0] = B(2i.., g), b[1] = B(2i + 8.., g)
///   d[0..1] = D(g, 2i..), d[2..3] = D(g + 8, 2i..)
__device__ inline void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/// Four 8 x 8 matrices of bf16 from shared memory: lane 8m + r gives the address of row r of matrix
/// m, 16 bytes, aligned to them. Lane l gets elements (l / 4, 2 (l % 4)..) of matrix m in out[m].
__device__ inline void ldmatrix_x4(uint32_t (&out)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(shared_address(row))
               : "memory");
}
/// The same of the transposed matrices: lane l gets elements (2 (l % 4).., l / 4).
__device__ inline void ldmatrix_x4_transposed(uint32_t (&out)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(shared_address(row))
               : "memory");
}
/// Two matrices; the addresses of lanes 16 to 31 are not used.
__device__ inline void ldmatrix_x2(uint32_t (&out)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
               : "=r"(out[0]), "=r"(out[1])
               : "r"(shared_address(row))
               : "memory");
}
__device__ inline void ldmatrix_x2_transposed(uint32_t (&out)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
               : "=r"(out[0]), "=r"(out[1])
               : "r"(shared_address(row))
               : "memory");
}

/// 16 bytes that are read once: they pass by the first-level cache.
__device__ inline uint4 load_once(const uint4* p) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(p));
  return v;
}
/// 2^x, within 2 ulp; subnormal results become 0.
__device__ inline float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
/// Two fp32 as bf16, rounded to nearest even, `low` in the lower half.
__device__ inline uint32_t pack_bf16x2(float low, float high) {
  uint32_t y;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
  return y;
}
/// Waits for `threads` threads (whole warps) at barrier `id`, 1 to 15; 0 is __syncthreads.
__device__ inline void named_barrier(unsigned id, unsigned threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

#else  // ---- the twins

inline void copy_async(void* shared, const void* global) {
  host::copy_later(shared, global, 16, 16);
}
inline void copy_async_or_zero(void* shared, const void* global, bool valid) {
  host::copy_later(shared, global, 16, valid ? 16 : 0);
}
inline void copy_async_commit() { host::commit_copies(); }
template <int kGroupsLeft>
void copy_async_wait(const host::Where& where = host::Where::current()) {
  host::wait_for_copies(kGroupsLeft, where);
}

/// These have no mask: a device runs them for whole warps or does not define what comes out.
inline void want_every_lane(const char* name, unsigned mask) {
  if (mask != 0xffffffffu)
    throw host::LaunchError(std::string(name) + ": wants all 32 lanes of the warp, lane " +
                            std::to_string(std::countr_one(mask)) + " is not there");
}

inline void mma_m16n8k16(float (&d)[4],
                         const uint32_t (&a)[4],
                         const uint32_t (&b)[2],
                         const host::Where& where = host::Where::current()) {
  struct Fragments {
    float* d;
    const uint32_t *a, *b;
  } mine{d, a, b};
  host::warp_collective(
      "mma_m16n8k16",
      0xffffffffu,
      &mine,
      [](void* const* lanes, unsigned of_lanes) {
        want_every_lane("mma_m16n8k16", of_lanes);
        float A[16][16], B[16][8], D[16][8];
        const auto low = [](uint32_t w) { return std::bit_cast<float>(w << 16); };
        const auto high = [](uint32_t w) { return std::bit_cast<float>(w & 0xffff0000u); };
        for (int lane = 0; lane < 32; ++lane) {
          const auto& of = *static_cast<const Fragments*>(lanes[lane]);
          const int g = lane / 4, i = lane % 4 * 2;
          for (int r = 0; r < 4; ++r) {
            A[g + r % 2 * 8][i + r / 2 * 8] = low(of.a[r]);
            A[g + r % 2 * 8][i + r / 2 * 8 + 1] = high(of.a[r]);
            D[g + r / 2 * 8][i + r % 2] = of.d[r];
          }
          for (int r = 0; r < 2; ++r) {
            B[i + r * 8][g] = low(of.b[r]);
            B[i + r * 8 + 1][g] = high(of.b[r]);
          }
        }
        for (int m = 0; m < 16; ++m)
          for (int k = 0; k < 16; ++k)
            for (int n = 0; n < 8; ++n) D[m][n] += A[m][k] * B[k][n];
        for (int lane = 0; lane < 32; ++lane)
          for (int r = 0; r < 4; ++r)
            static_cast<const Fragments*>(lanes[lane])->d[r] =
                D[lane / 4 + r / 2 * 8][lane % 4 * 2 + r % 2];
      },
      where);
}

template <int kMatrices, bool kTransposed>
void ldmatrix(const char* name,
              uint32_t (&out)[kMatrices],
              const void* row,
              const host::Where& where) {
  struct Access {
    uint32_t* out;
    const uint16_t* row;
  } mine{out, static_cast<const uint16_t*>(row)};
  if (reinterpret_cast<uintptr_t>(row) % 16 != 0)
    throw host::LaunchError(std::string(name) + ": a row is not aligned to 16 bytes");
  host::warp_collective(
      name,
      0xffffffffu,
      &mine,
      [](void* const* lanes, unsigned of_lanes) {
        want_every_lane("ldmatrix", of_lanes);
        const auto row_of = [&](int i) { return static_cast<const Access*>(lanes[i])->row; };
        for (int lane = 0; lane < 32; ++lane)
          for (int m = 0; m < kMatrices; ++m) {
            const int at = lane / 4, pair = lane % 4 * 2;
            const uint32_t first =
                kTransposed ? row_of(8 * m + pair)[at] : row_of(8 * m + at)[pair];
            const uint32_t second =
                kTransposed ? row_of(8 * m + pair + 1)[at] : row_of(8 * m + at)[pair + 1];
            static_cast<const Access*>(lanes[lane])->out[m] = first | second << 16;
          }
      },
      where);
}
#define COHORT_HERE const host::Where& where = host::Where::current()
inline void ldmatrix_x4(uint32_t (&out)[4], const void* row, COHORT_HERE) {
  ldmatrix<4, false>("ldmatrix_x4", out, row, where);
}
inline void ldmatrix_x4_transposed(uint32_t (&out)[4], const void* row, COHORT_HERE) {
  ldmatrix<4, true>("ldmatrix_x4_transposed", out, row, where);
}
inline void ldmatrix_x2(uint32_t (&out)[2], const void* row, COHORT_HERE) {
  ldmatrix<2, false>("ldmatrix_x2", out, row, where);
}
inline void ldmatrix_x2_transposed(uint32_t (&out)[2], const void* row, COHORT_HERE) {
  ldmatrix<2, true>("ldmatrix_x2_transposed", out, row, where);
}
inline void named_barrier(unsigned id, unsigned threads, COHORT_HERE) {
  host::block_barrier(id, threads, false, "named_barrier", where);
}
#undef COHORT_HERE

inline uint4 load_once(const uint4* p) { return *p; }
inline float exp2_approx(float x) {
  const float y = std::exp2(x);
  return std::fpclassify(y) == FP_SUBNORMAL ? 0 : y;
}
inline uint32_t pack_bf16x2(float low, float high) {
  return static_cast<uint32_t>(__float2bfloat16_rn(high).bits) << 16 |
         __float2bfloat16_rn(low).bits;
}

#endif

}  // namespace cohort::kernels::COHORT_DEVICE
#endif
