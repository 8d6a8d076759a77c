// The device kernels of dispatch, run on the host, against their CPU twins and the definition.
#include <numeric>
#include <vector>

#include "kernels/cpu/dispatch.h"
#include "kernels/cuda/dispatch.cuh"
#include "tests/kernels/device_runs.h"

using namespace cohort::tests;
namespace cpu = cohort::kernels;
namespace device = cohort::kernels::emulated;
using cpu::bf16;

namespace {

std::vector<int64_t> random_experts(int64_t pairs, int64_t E, unsigned seed) {
  std::mt19937 generator(seed);
  std::vector<int64_t> expert(pairs);
  // Half of the pairs go to few experts: long and empty lists both occur.
  for (auto& e : expert)
    e = static_cast<int64_t>(generator() % (generator() % 2 ? E : (E + 7) / 8));
  return expert;
}

struct Sorted {
  std::vector<int64_t> count, pair_at, place_of;
};

Sorted sorted(const std::vector<int64_t>& expert, int64_t E) {
  const auto pairs = static_cast<int64_t>(expert.size());
  Sorted s{std::vector<int64_t>(E, -1),
           std::vector<int64_t>(pairs, -1),
           std::vector<int64_t>(pairs, -1)};
  std::vector<int64_t> workspace((device::sort_pairs_workspace(pairs, E) + 7) / 8);
  device::sort_pairs(expert.data(),
                     pairs,
                     E,
                     s.count.data(),
                     s.pair_at.data(),
                     s.place_of.data(),
                     workspace.data(),
                     nullptr);
  return s;
}

std::vector<int64_t> shuffled(int64_t n) {
  std::vector<int64_t> index(n);
  std::iota(index.begin(), index.end(), 0);
  std::shuffle(index.begin(), index.end(), std::mt19937(3));
  return index;
}

/// Rows behind `offset` elements: with 1, no 16-byte access is possible.
template <class Row>
struct Rows {
  std::vector<Row> memory;
  int64_t offset;
  Rows(int64_t count, int64_t offset, unsigned seed)
      : memory(normal_values<Row>(count + offset, seed)), offset(offset) {}
  Row* cpu() { return memory.data() + offset; }
  DeviceType<Row>* device() { return on_device(cpu()); }
};

template <class Row>
void compare_moves(int64_t T, int64_t K, int64_t D, int64_t offset) {
  CAPTURE(T, K, D, offset, sizeof(Row));
  const auto index = shuffled(T * K);
  Rows<Row> in(T * D, offset, 1), out(T * K * D, offset, 2), expected(T * K * D, offset, 2),
      back = expected;
  check_every_order([&] {
    device::gather_rows(in.device(), index.data(), K, T * K, D, out.device(), nullptr);
    device::scatter_rows(out.device(), index.data(), T * K, D, back.device(), nullptr);
    return bytes_of(out.memory, back.memory);
  });
  cpu::gather_rows(in.cpu(), index.data(), K, T * K, D, expected.cpu());
  CHECK(bytes_of(out.memory) == bytes_of(expected.memory));
  cpu::scatter_rows(out.cpu(), index.data(), T * K, D, expected.cpu());
  CHECK(bytes_of(back.memory) == bytes_of(expected.memory));
}

template <class Row>
void compare_combine(int64_t T, int64_t K, int64_t D, int64_t offset, bool gated) {
  CAPTURE(T, K, D, offset, gated, sizeof(Row));
  const auto place = shuffled(T * K);
  const auto gate = normal_values<float>(T * K, 5);
  const float* weights = gated ? gate.data() : nullptr;
  Rows<Row> rows(T * K * D, offset, 1), out(T * D, offset, 2), twin = out;
  check_every_order([&] {
    device::combine_rows(rows.device(), place.data(), weights, T, K, D, out.device(), nullptr);
    return bytes_of(out.memory);
  });
  auto exact = twin.memory;
  for (int64_t t = 0; t < T; ++t)
    for (int64_t d = 0; d < D; ++d) {
      float sum = 0;
      for (int64_t k = 0; k < K; ++k)
        sum = std::fma(
            gated ? gate[t * K + k] : 1.0f, cpu::to_sum(rows.cpu()[place[t * K + k] * D + d]), sum);
      cpu::from_sum(sum, exact[offset + t * D + d]);
    }
  CHECK(bytes_of(out.memory) == bytes_of(exact));
  // The twin's multiply and add may be one rounding or two, as its compiler likes.
  cpu::combine_rows(rows.cpu(), place.data(), weights, T, K, D, twin.cpu());
  CHECK(worst_error(out.memory, twin.memory) < (sizeof(Row) == 2 ? 1e-2 : 1e-6));
}

template <class Row>
void compare_combine_backward(int64_t T, int64_t K, int64_t D, int64_t offset) {
  CAPTURE(T, K, D, offset, sizeof(Row));
  const auto place = shuffled(T * K);
  const auto gate = normal_values<float>(T * K, 5);
  Rows<Row> d_out(T * D, offset, 1), rows(T * K * D, offset, 2), d_rows(T * K * D, offset, 3),
      twin_rows = d_rows;
  std::vector<float> d_gate(T * K, -1), twin_gate(T * K, -1);
  check_every_order([&] {
    device::combine_rows_backward(d_out.device(),
                                  rows.device(),
                                  place.data(),
                                  gate.data(),
                                  T,
                                  K,
                                  D,
                                  d_rows.device(),
                                  d_gate.data(),
                                  nullptr);
    return bytes_of(d_rows.memory, d_gate);
  });
  cpu::combine_rows_backward(d_out.cpu(),
                             rows.cpu(),
                             place.data(),
                             gate.data(),
                             T,
                             K,
                             D,
                             twin_rows.cpu(),
                             twin_gate.data());
  CHECK(bytes_of(d_rows.memory) == bytes_of(twin_rows.memory));
  std::vector<double> exact(T * K);
  for (int64_t p = 0; p < T * K; ++p)
    for (int64_t d = 0; d < D; ++d)
      exact[p] += double{cpu::to_sum(d_out.cpu()[p / K * D + d])} *
                  cpu::to_sum(rows.cpu()[place[p] * D + d]);
  CHECK(worst_error(d_gate, exact) < 1e-5);
  CHECK(worst_error(twin_gate, exact) < 1e-5);
}

/// Widths around a piece, a warp's pieces and a block's, of both kinds of row.
const std::vector<int64_t> kWidths = {
    1, 3, 4, 7, 8, 9, 31, 32, 33, 64, 128, 132, 256, 264, 1024, 1032};

}  // namespace

TEST_CASE("Device sort of pairs is the CPU's, for every tail of warps, tiles and experts",
          "[kernels-device]") {
  for (const int64_t E : {1, 2, 31, 33, 256, 1024})
    for (const int64_t pairs : {0, 1, 31, 32, 33, 128, 129, 1023, 1024, 1025, 3000}) {
      CAPTURE(E, pairs);
      ++combinations;
      const auto expert = random_experts(pairs, E, static_cast<unsigned>(pairs + E));
      const auto ours = sorted(expert, E);
      Sorted twin = ours;
      cpu::sort_pairs(
          expert.data(), pairs, E, twin.count.data(), twin.pair_at.data(), twin.place_of.data());
      CHECK(ours.count == twin.count);
      CHECK(ours.pair_at == twin.pair_at);
      CHECK(ours.place_of == twin.place_of);
    }
  for (const int64_t pairs : {33, 1025, 2100})
    check_every_order([&] {
      const auto s = sorted(random_experts(pairs, 60, 2), 60);
      return bytes_of(s.count, s.pair_at, s.place_of);
    });
}

TEST_CASE("Device gather and scatter move the very rows, whatever their width and alignment",
          "[kernels-device]") {
  for (const int64_t D : kWidths)
    for (const int64_t offset : {0, 1}) {
      compare_moves<float>(5, 3, D, offset);
      compare_moves<bf16>(9, 2, D, offset);
    }
  compare_moves<float>(1, 1, 4100, 0);
  compare_moves<bf16>(2, 1, 8200, 0);
}

TEST_CASE("Device combine adds in the order of k, whatever the width and alignment",
          "[kernels-device]") {
  for (const int64_t D : kWidths)
    for (const int64_t K : {1, 4, 9}) {
      compare_combine<float>(5, K, D, 0, true);
      compare_combine<bf16>(5, K, D, K == 4, K != 9);
    }
  compare_combine<float>(3, 2, 33, 1, false);
  compare_combine<float>(2, 8, 4100, 0, true);
}

TEST_CASE("Device combine backward gives rows and gates their gradients", "[kernels-device]") {
  for (const int64_t D : kWidths)
    for (const int64_t K : {1, 8, 9}) {
      compare_combine_backward<float>(5, K, D, 0);
      compare_combine_backward<bf16>(5, K, D, K == 8);
    }
  compare_combine_backward<float>(2, 17, 4100, 0);
}

TEST_CASE("Every barrier and every mask of the dispatch kernels is needed: its fault is caught",
          "[kernels-device]") {
  const auto expert = random_experts(2100, 60, 2);
  CHECK(faults_not_caught([&] {
          const auto s = sorted(expert, 60);
          return bytes_of(s.count, s.pair_at, s.place_of);
        }) == std::vector<std::string>{});
  const int64_t T = 3, K = 10, D = 600;
  const auto place = shuffled(T * K);
  const auto gate = normal_values<float>(T * K, 5);
  Rows<float> d_out(T * D, 0, 1), rows(T * K * D, 0, 2), d_rows(T * K * D, 0, 3);
  std::vector<float> d_gate(T * K);
  CHECK(faults_not_caught([&] {
          std::fill(d_gate.begin(), d_gate.end(), -1.0f);
          device::combine_rows_backward(d_out.device(),
                                        rows.device(),
                                        place.data(),
                                        gate.data(),
                                        T,
                                        K,
                                        D,
                                        d_rows.device(),
                                        d_gate.data(),
                                        nullptr);
          return bytes_of(d_gate);
        }) == std::vector<std::string>{});
}
