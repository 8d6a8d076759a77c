// What the emulation promises of Hopper: mbarriers, boxes copied by TMA, and wgmma.
#include <random>
#include <vector>

#include "kernels/cuda/hopper.cuh"
#include "tests/catch.h"

using namespace cohort::kernels;
using namespace cohort::kernels::emulated;
using Catch::Matchers::Contains;

namespace {

const host::Schedule kSchedules[] = {
    {host::Order::kInOrder}, {host::Order::kReversed}, {host::Order::kRandom, 7}};

constexpr int kRows = 64;

__device__ void make(Mbarrier& barrier, unsigned arrivals) {
  if (threadIdx.x == 0) {
    mbarrier_init(barrier, arrivals);
    mbarrier_init_fence();
  }
  __syncthreads();
}

/// A box as it lies in shared memory.
__global__ void box_kernel(const TensorMap map, int column, int head, int token, bf16* out) {
  COHORT_SHARED(Mbarrier, barrier);
  bf16* panel = dynamic_shared<bf16>();
  make(barrier, 1);
  if (threadIdx.x == 0) {
    mbarrier_arrive_expect(barrier, 128 * kRows);
    copy_box(panel, map, column, head, token, barrier);
  }
  mbarrier_wait(barrier, 0);
  for (int i = static_cast<int>(threadIdx.x); i < kRows * 64; i += 32) out[i] = panel[i];
}

/// d = a b^T for a, b [64, 128], and too = (what is in d, rounded) c for c [64, 128].
__global__ void products_kernel(
    const TensorMap a, const TensorMap b, const TensorMap c, float* d, float* too) {
  COHORT_SHARED(Mbarrier, barrier);
  bf16* tile = dynamic_shared<bf16>();
  constexpr int kTile = kRows * 128;
  make(barrier, 1);
  if (threadIdx.x == 0) {
    mbarrier_arrive_expect(barrier, 3 * kTile * 2);
    const TensorMap* maps[] = {&a, &b, &c};
    for (int t = 0; t < 3; ++t)
      for (int panel = 0; panel < 2; ++panel)
        copy_box(tile + t * kTile + panel * kRows * 64, *maps[t], panel * 64, 0, 0, barrier);
  }
  mbarrier_wait(barrier, 0);
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  float s[8][4], sum[16][4] = {};
  wgmma_fence();
  for (int k = 0; k < 8; ++k)
    wgmma(
        s, panel_descriptor(tile, kRows, 0, k), panel_descriptor(tile + kTile, kRows, 0, k), k > 0);
  wgmma_commit();
  wgmma_wait<0>();
  uint32_t p[4][4];
  for (int k = 0; k < 4; ++k)
    for (int r = 0; r < 4; ++r) {
      const float* from = &s[2 * k + r / 2][r % 2 * 2];
      p[k][r] =
          uint32_t{__float2bfloat16_rn(from[1]).bits} << 16 | __float2bfloat16_rn(from[0]).bits;
    }
  wgmma_fence();
  for (int k = 0; k < 4; ++k)
    wgmma_across(sum, p[k], panel_descriptor(tile + 2 * kTile, kRows, k * 16, 0));
  wgmma_commit();
  wgmma_wait<0>();
  for (int r = 0; r < 4; ++r) {
    const int row = warp * 16 + lane / 4 + r / 2 * 8, column = lane % 4 * 2 + r % 2;
    for (int n = 0; n < 8; ++n) d[row * 64 + n * 8 + column] = s[n][r];
    for (int n = 0; n < 16; ++n) too[row * 128 + n * 8 + column] = sum[n][r];
  }
}

__global__ void endless_kernel() {
  COHORT_SHARED(Mbarrier, barrier);
  make(barrier, 33);
  mbarrier_arrive(barrier);
  mbarrier_wait(barrier, 0);
}
__global__ void not_made_kernel() {
  COHORT_SHARED(Mbarrier, barrier);
  mbarrier_wait(barrier, 0);
}
__global__ void not_fenced_kernel() {
  float s[8][4];
  const uint64_t at = panel_descriptor(dynamic_shared<bf16>(), kRows, 0, 0);
  wgmma(s, at, at, false);
}
__global__ void other_layout_kernel() {
  float s[8][4];
  const uint64_t at = panel_descriptor(dynamic_shared<bf16>(), kRows, 0, 0);
  wgmma_fence();
  wgmma(s, at, at & ~(uint64_t{3} << 62), false);
  wgmma_commit();
  wgmma_wait<0>();
}
__global__ void abandoned_kernel(const TensorMap map) {
  COHORT_SHARED(Mbarrier, barrier);
  make(barrier, 1);
  if (threadIdx.x == 0) copy_box(dynamic_shared<bf16>(), map, 0, 0, 0, barrier);
}

std::vector<bf16> random_values(size_t n, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  std::vector<bf16> values(n);
  for (auto& v : values) v = __float2bfloat16_rn(normal(generator));
  return values;
}

}  // namespace

TEST_CASE("An emulated box lies in permuted rows of 128 bytes, zeros beyond its tensor",
          "[kernels-emulation]") {
  const int tokens = 70, heads = 3, dim = 128;
  const auto values = random_values(size_t{tokens} * heads * dim, 3);
  const TensorMap map = tensor_map(values.data(), tokens, heads, dim, kRows);
  for (const auto& schedule : kSchedules)
    for (const int token : {0, 5, 40, 69, 70}) {
      const host::UseSchedule use(schedule);
      std::vector<bf16> out(kRows * 64);
      launch(box_kernel, Grid(1, 32, 128 * kRows, nullptr), map, 64, 2, token, out.data());
      for (int r = 0; r < kRows; ++r)
        for (int c = 0; c < 64; ++c) {
          const uint16_t want =
              token + r < tokens ? values[((token + r) * heads + 2) * dim + 64 + c].bits : 0;
          REQUIRE(out[r * 64 + ((c / 8) ^ (r % 8)) * 8 + c % 8].bits == want);
        }
    }
}

TEST_CASE("Emulated products of a warp group are those of the matrices", "[kernels-emulation]") {
  const auto a = random_values(64 * 128, 1), b = random_values(64 * 128, 2),
             c = random_values(64 * 128, 4);
  const auto value = [](const std::vector<bf16>& m, int row, int column) {
    return double{__bfloat162float(m[row * 128 + column])};
  };
  const auto map = [](const std::vector<bf16>& m) { return tensor_map(m.data(), 64, 1, 128, 64); };
  for (const auto& schedule : kSchedules) {
    const host::UseSchedule use(schedule);
    std::vector<float> d(64 * 64), too(64 * 128);
    const auto run = [&] {
      launch(products_kernel,
             Grid(1, 128, 3 * 64 * 128 * 2, nullptr),
             map(a),
             map(b),
             map(c),
             d.data(),
             too.data());
    };
    run();
    for (int m = 0; m < 64; ++m)
      for (int n = 0; n < 128; ++n) {
        double exact = 0, next = 0;
        for (int k = 0; k < 128 && n < 64; ++k) exact += value(a, m, k) * value(b, n, k);
        for (int k = 0; k < 64; ++k)
          next += double{__bfloat162float(__float2bfloat16_rn(d[m * 64 + k]))} * value(c, k, n);
        if (n < 64) REQUIRE(std::abs(d[m * 64 + n] - exact) < 1e-4);
        REQUIRE(std::abs(too[m * 128 + n] - next) < 1e-3);
      }
  }
}

TEST_CASE("What Hopper hangs at or leaves undefined is an error when emulated",
          "[kernels-emulation]") {
  const auto values = random_values(64 * 64, 5);
  const TensorMap map = tensor_map(values.data(), 64, 1, 64, kRows);
  for (const auto& schedule : kSchedules) {
    const host::UseSchedule use(schedule);
    CHECK_THROWS_WITH(
        launch(endless_kernel, Grid(1, 32, 0, nullptr)),
        Contains("waits at mbarrier_wait") && Contains("for a phase that nothing will end"));
    CHECK_THROWS_WITH(launch(not_made_kernel, Grid(1, 32, 0, nullptr)),
                      Contains("an mbarrier that was not initialised"));
    CHECK_THROWS_WITH(launch(not_fenced_kernel, Grid(1, 128, 8192, nullptr)),
                      Contains("without a wgmma_fence"));
    CHECK_THROWS_WITH(launch(other_layout_kernel, Grid(1, 128, 8192, nullptr)),
                      Contains("a descriptor of another layout"));
    CHECK_THROWS_WITH(launch(box_kernel,
                             Grid(1, 32, 64 * kRows, nullptr),
                             map,
                             0,
                             0,
                             0,
                             const_cast<bf16*>(values.data())),
                      Contains("a box beyond the shared memory"));
  }
  CHECK_THROWS_WITH(launch(abandoned_kernel, Grid(1, 32, 8192, nullptr), map),
                    Contains("while bulk copies to their memory are under way"));
}
