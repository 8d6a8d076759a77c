// The emulation itself: what device.cuh promises of threads, warps, barriers, copies and faults.
#include <random>
#include <set>
#include <vector>

#include "kernels/cuda/ptx.cuh"
#include "tests/catch.h"

using namespace cohort::kernels;
using namespace cohort::kernels::emulated;
using Catch::Matchers::Contains;

namespace {

const host::Schedule kSchedules[] = {
    {host::Order::kInOrder}, {host::Order::kReversed}, {host::Order::kRandom, 7}};

/// Neighbours exchange through shared memory, in blocks of any shape.
__global__ void rotate_kernel(const int* in, int* out) {
  COHORT_SHARED(int[1024], tile);
  const unsigned size = blockDim.x * blockDim.y * blockDim.z;
  const unsigned at = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  const unsigned base = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  tile[at] = in[base * size + at];
  __syncthreads();
  out[base * size + at] = tile[(at + 1) % size];
}

__global__ void warp_sum_kernel(const float* in, float* out) {
  float v = in[threadIdx.x];
  for (int d = 16; d > 0; d /= 2) v += __shfl_xor_sync(0xffffffffu, v, d);
  out[threadIdx.x] = v;
}

__global__ void uninitialised_kernel(float* out) {
  COHORT_SHARED(float[32], tile);
  out[blockIdx.x * 64 + threadIdx.x] = tile[threadIdx.x];
  out[blockIdx.x * 64 + 32 + threadIdx.x] = dynamic_shared<float>()[threadIdx.x];
  tile[threadIdx.x] = dynamic_shared<float>()[threadIdx.x] = 1;
}

__global__ void early_exit_kernel(int n) {
  if (static_cast<int>(threadIdx.x) >= n) return;
  __syncthreads();
}
__global__ void ended_lanes_kernel(int n) {
  if (static_cast<int>(threadIdx.x) >= n) return;
  __syncwarp();
}
__global__ void foreign_mask_kernel() { __ballot_sync(0x0000ffffu, 1); }
__global__ void crossed_masks_kernel() {
  __ballot_sync(threadIdx.x == 0 ? 0xffffffffu : 0x0000ffffu | 1u << threadIdx.x, 1);
}
__global__ void crossed_barriers_kernel() {
  if (threadIdx.x < 32)
    named_barrier(1, 64);
  else
    named_barrier(2, 64);
}
__global__ void nothing_kernel() {}

/// Two stages of 16-byte copies; the last piece is half out of range and filled with zeros.
__global__ void pipeline_kernel(const uint4* in, int pieces, int* sums) {
  uint4* stage = dynamic_shared<uint4>();
  int sum = 0;
  const int t = static_cast<int>(threadIdx.x);
  const auto load = [&](int step) {
    const int at = step * 64 + t;
    copy_async_or_zero(&stage[step % 2 * 64 + t], in + (at < pieces ? at : 0), at < pieces);
    copy_async_commit();
  };
  load(0);
  for (int step = 0; step * 64 < pieces; ++step) {
    load(step + 1);
    copy_async_wait<1>();
    __syncthreads();
    const uint4 v = stage[step % 2 * 64 + 63 - t];
    sum += static_cast<int>(v.x + v.y + v.z + v.w);
    __syncthreads();
  }
  copy_async_wait<0>();
  sums[t] = sum;
}

__global__ void mma_kernel(const bf16* a, const bf16* b_transposed, const bf16* b, float* d) {
  COHORT_SHARED(bf16[16][16], tile_a);
  COHORT_SHARED(bf16[8][16], tile_bt);
  COHORT_SHARED(bf16[16][8], tile_b);
  const int lane = static_cast<int>(threadIdx.x);
  for (int i = lane; i < 256; i += 32) tile_a[i / 16][i % 16] = a[i];
  for (int i = lane; i < 128; i += 32) tile_bt[i / 16][i % 16] = b_transposed[i];
  for (int i = lane; i < 128; i += 32) tile_b[i / 8][i % 8] = b[i];
  __syncwarp();
  uint32_t fa[4], fb[2], fb_too[2];
  ldmatrix_x4(fa, &tile_a[lane % 16][lane / 16 * 8]);
  ldmatrix_x2(fb, &tile_bt[lane % 8][lane / 8 % 2 * 8]);
  ldmatrix_x2_transposed(fb_too, &tile_b[lane % 16][0]);
  float sum[4] = {0, 0, 0, 0}, too[4] = {0, 0, 0, 0};
  mma_m16n8k16(sum, fa, fb);
  mma_m16n8k16(too, fa, fb_too);
  for (int r = 0; r < 4; ++r) {
    const int at = (lane / 4 + r / 2 * 8) * 8 + lane % 4 * 2 + r % 2;
    d[at] = sum[r];
    d[128 + at] = too[r];
  }
}

std::vector<int> rotated(dim3 blocks, dim3 threads) {
  const unsigned size = threads.x * threads.y * threads.z;
  std::vector<int> in(size * blocks.x * blocks.y * blocks.z), out(in.size(), -1);
  for (size_t i = 0; i < in.size(); ++i) in[i] = static_cast<int>(i);
  launch(rotate_kernel, Grid(blocks, threads, 0, nullptr), in.data(), out.data());
  return out;
}

}  // namespace

TEST_CASE("Emulated blocks and threads have CUDA's numbering, in every order of execution",
          "[kernels-emulation]") {
  const std::vector<std::pair<dim3, dim3>> shapes = {
      {{1}, {1}}, {{3}, {32}}, {{2, 3, 2}, {33}}, {{5}, {7, 5, 3}}, {{2}, {1024}}};
  for (const auto& schedule : kSchedules) {
    const host::UseSchedule use(schedule);
    for (const auto& [blocks, threads] : shapes) {
      const auto out = rotated(blocks, threads);
      const int size = static_cast<int>(threads.x * threads.y * threads.z);
      for (int i = 0; i < static_cast<int>(out.size()); ++i)
        REQUIRE(out[i] == i / size * size + (i + 1) % size);
    }
  }
}

TEST_CASE("A removed barrier changes an emulated result in some order", "[kernels-emulation]") {
  const auto sites = host::sync_sites([] { rotated({1}, {64}); });
  REQUIRE(sites.size() == 1);
  CHECK(sites[0].kind == host::SyncSite::kBarrier);
  const auto right = rotated({2}, {64});
  const host::PlantFault fault(sites[0]);
  for (const auto& schedule : kSchedules) {
    const host::UseSchedule use(schedule);
    CHECK(rotated({2}, {64}) != right);
  }
}

TEST_CASE("Emulated shuffles add a warp, and a lane missing from the mask is an error",
          "[kernels-emulation]") {
  std::vector<float> in(64), out(64);
  for (int i = 0; i < 64; ++i) in[i] = static_cast<float>(i);
  const auto run = [&] { launch(warp_sum_kernel, Grid(1, 64, 0, nullptr), in.data(), out.data()); };
  for (const auto& schedule : kSchedules) {
    const host::UseSchedule use(schedule);
    run();
    for (int i = 0; i < 64; ++i) CHECK(out[i] == (i < 32 ? 496 : 1520));
  }
  const host::PlantFault fault(host::sync_sites(run).at(0));
  CHECK_THROWS_WITH(run(), Contains("without being in the mask"));
}

TEST_CASE("Shared memory is NaN at the start of every emulated block", "[kernels-emulation]") {
  std::vector<float> out(3 * 64, 0);
  launch(uninitialised_kernel, Grid(3, 32, 128, nullptr), out.data());
  for (const float v : out) CHECK(v != v);
}

TEST_CASE("What hangs a device is an error with names when emulated", "[kernels-emulation]") {
  for (const auto& schedule : kSchedules) {
    const host::UseSchedule use(schedule);
    CHECK_THROWS_WITH(launch(early_exit_kernel, Grid(2, 64, 0, nullptr), 63),
                      Contains("waits at __syncthreads") && Contains("host_execution.tests.cpp") &&
                          Contains("thread (63,0,0), which has ended") && Contains("block ("));
    CHECK_THROWS_WITH(launch(ended_lanes_kernel, Grid(1, 32, 0, nullptr), 20),
                      Contains("__syncwarp") && Contains("ended"));
    CHECK_THROWS_WITH(launch(ended_lanes_kernel, Grid(1, 20, 0, nullptr), 20),
                      Contains("its warp has lanes 0x000fffff only"));
    CHECK_THROWS_WITH(launch(foreign_mask_kernel, Grid(1, 32, 0, nullptr)),
                      Contains("without being in the mask") || Contains("has ended"));
    CHECK_THROWS_AS(launch(crossed_masks_kernel, Grid(1, 32, 0, nullptr)), host::LaunchError);
    CHECK_THROWS_WITH(launch(crossed_barriers_kernel, Grid(1, 64, 0, nullptr)),
                      Contains("waits at named_barrier"));
  }
  launch(nothing_kernel, Grid(2, 1024, 0, nullptr));  // and all is as before
  CHECK_THROWS_WITH(launch(nothing_kernel, Grid(1, 1025, 0, nullptr)), Contains("1024 threads"));
  CHECK_THROWS_WITH(launch(nothing_kernel, Grid(0, 32, 0, nullptr)), Contains("one block"));
  CHECK_THROWS_WITH(launch(nothing_kernel, Grid(1, 32, 228 << 10, nullptr)), Contains("227 KB"));
}

TEST_CASE("Emulated asynchronous copies arrive at the wait, and a removed wait or barrier shows",
          "[kernels-emulation]") {
  const int pieces = 64 * 5 + 17;
  std::vector<uint4> in(pieces);
  int total = 0;
  for (int i = 0; i < pieces; ++i) {
    in[i] = make_uint4(i, 2 * i, 3, 4);
    total += 3 * i + 7;
  }
  const auto run = [&] {
    std::vector<int> sums(64, -1);
    launch(pipeline_kernel, Grid(1, 64, 2 * 64 * 16, nullptr), in.data(), pieces, sums.data());
    return sums;
  };
  const auto right = run();
  int sum = 0;
  for (const int s : right) sum += s;
  CHECK(sum == total);
  for (const auto& schedule : kSchedules) {
    const host::UseSchedule use(schedule);
    CHECK(run() == right);
  }
  const auto sites = host::sync_sites([&] { run(); });
  REQUIRE(sites.size() == 4);
  for (const auto& site : sites) {
    if (site == sites.back()) break;  // the wait for the empty copies at the end
    INFO("line " << site.line);
    const host::PlantFault fault(site);
    bool caught = false;
    for (const auto& schedule : kSchedules) {
      const host::UseSchedule use(schedule);
      caught = caught || run() != right;
    }
    CHECK(caught);
  }
}

TEST_CASE("Emulated matrix fragments have the lane layout of PTX", "[kernels-emulation]") {
  std::mt19937 generator(5);
  std::normal_distribution<float> normal;
  std::vector<bf16> a(256), b(128), bt(128);
  for (auto& v : a) v = __float2bfloat16_rn(normal(generator));
  for (int k = 0; k < 16; ++k)
    for (int n = 0; n < 8; ++n)
      b[k * 8 + n] = bt[n * 16 + k] = __float2bfloat16_rn(normal(generator));
  std::vector<float> d(256);
  for (const auto& schedule : kSchedules) {
    const host::UseSchedule use(schedule);
    launch(mma_kernel, Grid(1, 32, 0, nullptr), a.data(), bt.data(), b.data(), d.data());
    for (int m = 0; m < 16; ++m)
      for (int n = 0; n < 8; ++n) {
        double exact = 0;
        for (int k = 0; k < 16; ++k)
          exact += double{__bfloat162float(a[m * 16 + k])} * __bfloat162float(b[k * 8 + n]);
        CHECK(std::abs(d[m * 8 + n] - exact) < 1e-5);
        CHECK(d[128 + m * 8 + n] == d[m * 8 + n]);
      }
  }
}

TEST_CASE("Emulated half and bfloat16 round to nearest even", "[kernels-emulation]") {
  for (uint32_t i = 0; i < 65536; ++i) {
    const auto bits = static_cast<uint16_t>(i);
    const float b = __bfloat162float(__ushort_as_bfloat16(bits));
    const float h = __half2float(__ushort_as_half(bits));
    if (b == b) REQUIRE(__float2bfloat16_rn(b).bits == bits);
    if (h == h) REQUIRE(__float2half_rn(h).bits == bits);
    // Between two halves: the middle goes to the even one.
    const float next = __half2float(__ushort_as_half(static_cast<uint16_t>(i + 1)));
    if (h == h && next == next && (bits & 0x7fff) < 0x7bff) {
      REQUIRE(__float2half_rn((h + next) / 2).bits == (bits & 1 ? bits + 1 : bits));
      REQUIRE(__float2half_rn(std::nextafter((h + next) / 2, next)).bits == bits + 1);
    }
  }
  CHECK(__float2half_rn(65519.99f).bits == 0x7bff);
  CHECK(__float2half_rn(65520.0f).bits == 0x7c00);
  CHECK(__float2half_rn(1e30f).bits == 0x7c00);
  CHECK(__float2bfloat16_rn(NAN).bits == 0x7fff);
}
