#include "kernels/cpu/quantized.h"

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <vector>

#include "kernels/cpu/gemm.h"
#include "kernels/cpu/parallel.h"

namespace cohort::kernels {
namespace {

constexpr int64_t kBlockRows = 128, kLeastRows = 64;  // of W
constexpr int64_t kBlockK = 256;                      // even: a byte of two inputs is not cut

int64_t lanes() {
  static const int64_t lanes = gemm_packed_size(1, 1);
  return lanes;
}

int64_t bytes_per_lane(const QuantizedShape& shape) {
  return shape.bits == 8 ? shape.k : (shape.k + 1) / 2;
}

/// One row's group: its scale and offset, and the levels of its elements.
struct Levels {
  float scale, offset;

  Levels(const float* w, int64_t count, int bits) {
    const auto [low, high] = std::minmax_element(w, w + count);
    if (bits == 8) {
      scale = std::max(std::fabs(*low), std::fabs(*high)) / 127;
      offset = 0;
    } else {
      scale = *high / 15 - *low / 15;
      offset = *low;
    }
  }
  int level(float w, int bits) const {
    if (scale == 0) return 0;
    const int nearest = static_cast<int>(std::lrint((w - offset) / scale));
    return bits == 8 ? std::clamp(nearest, -127, 127) : std::clamp(nearest, 0, 15);
  }
};

void quantize_row(const float* w, const QuantizedMatrix& to, int64_t row) {
  const QuantizedShape& shape = to.shape;
  const int64_t width = lanes(), panel = row / width, lane = row % width;
  uint8_t* const data = to.data + panel * bytes_per_lane(shape) * width + lane;
  const int64_t first_scale = panel * shape.groups() * width + lane;
  for (int64_t g = 0; g < shape.groups(); ++g) {
    const int64_t begin = g * shape.group, end = std::min(shape.k, begin + shape.group);
    const Levels levels(w + begin, end - begin, shape.bits);
    to.scale[first_scale + g * width] = levels.scale;
    if (to.offset) to.offset[first_scale + g * width] = levels.offset;
    for (int64_t i = begin; i < end; ++i) {
      const int q = levels.level(w[i], shape.bits);
      if (shape.bits == 8)
        data[i * width] = static_cast<uint8_t>(static_cast<int8_t>(q));
      else
        data[i / 2 * width] |= static_cast<uint8_t>(q << (i % 2 ? 4 : 0));
    }
  }
}

/// Inputs [begin, end) of one group of one panel -> out [end - begin, kLanes].
template <int kLanes>
void expand_8(const uint8_t* data, const float* scale, int64_t begin, int64_t end, float* out) {
  for (int64_t i = begin; i < end; ++i, out += kLanes)
    for (int l = 0; l < kLanes; ++l)
      out[l] = scale[l] * static_cast<float>(static_cast<int8_t>(data[i * kLanes + l]));
}

template <int kLanes>
void expand_4(const uint8_t* data,
              const float* scale,
              const float* offset,
              int64_t begin,
              int64_t end,
              float* out) {
  for (int64_t i = begin; i < end; ++i, out += kLanes) {
    const uint8_t* const pair = data + i / 2 * kLanes;
    const int shift = i % 2 ? 4 : 0;
    for (int l = 0; l < kLanes; ++l)
      out[l] = offset[l] + scale[l] * static_cast<float>(pair[l] >> shift & 15);
  }
}

/// Inputs [k0, k1) of one panel -> out [k1 - k0, kLanes].
template <int kLanes>
void expand_panel(const QuantizedMatrix& w, int64_t panel, int64_t k0, int64_t k1, float* out) {
  const QuantizedShape& shape = w.shape;
  const uint8_t* const data = w.data + panel * bytes_per_lane(shape) * kLanes;
  const int64_t first_scale = panel * shape.groups() * kLanes;
  for (int64_t begin = k0; begin < k1;) {
    const int64_t g = begin / shape.group, end = std::min(k1, (g + 1) * shape.group);
    const int64_t at = first_scale + g * kLanes;
    float* const to = out + (begin - k0) * kLanes;
    if (shape.bits == 8)
      expand_8<kLanes>(data, w.scale + at, begin, end, to);
    else
      expand_4<kLanes>(data, w.scale + at, w.offset + at, begin, end, to);
    begin = end;
  }
}

using Expand = void (*)(const QuantizedMatrix&, int64_t, int64_t, int64_t, float*);

Expand expand_of_lanes() {
  switch (lanes()) {
    case 16:
      return expand_panel<16>;
    case 8:
      return expand_panel<8>;
    default:
      return expand_panel<4>;
  }
}

/// Rows [n0, n1) of one product's W, n0 at the start of a panel.
struct Task {
  const QuantizedProduct* product;
  int64_t n0, n1;
};

void run_task(const Task& task, Expand expand, std::vector<float>& block) {
  const QuantizedProduct& p = *task.product;
  const int64_t width = lanes(), rows = task.n1 - task.n0, k = p.w.shape.k;
  const int64_t panels = (rows + width - 1) / width;
  block.resize(static_cast<size_t>(panels * width * std::min(k, kBlockK)));
  for (int64_t k0 = 0; k0 < k; k0 += kBlockK) {
    const int64_t k1 = std::min(k, k0 + kBlockK);
    for (int64_t i = 0; i < panels; ++i)
      expand(p.w, task.n0 / width + i, k0, k1, block.data() + i * width * (k1 - k0));
    GemmProduct product{GemmForm::kNT, p.m, rows, k1 - k0, p.x + k0, p.ldx};
    product.c = p.y + task.n0;
    product.ldc = p.ldy;
    product.accumulate = k0 > 0;  // goes on with the same chain of sums
    product.b_packed = block.data();
    gemm(product);
  }
}

}  // namespace

int64_t QuantizedShape::panels() const { return (n + lanes() - 1) / lanes(); }
int64_t QuantizedShape::data_bytes() const { return panels() * lanes() * bytes_per_lane(*this); }
int64_t QuantizedShape::num_scales() const { return panels() * lanes() * groups(); }

void quantize(const float* w, int64_t ldw, const QuantizedMatrix& to) {
  std::fill_n(to.data, to.shape.data_bytes(), uint8_t{0});
  std::fill_n(to.scale, to.shape.num_scales(), 0.0f);
  if (to.offset) std::fill_n(to.offset, to.shape.num_scales(), 0.0f);
  parallel_for(to.shape.n, 16, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) quantize_row(w + row * ldw, to, row);
  });
}

void dequantize_row(const QuantizedMatrix& from, int64_t row, float* out) {
  const int64_t width = lanes(), panel = row / width, lane = row % width;
  std::vector<float> block(static_cast<size_t>(kBlockK * width));
  const Expand expand = expand_of_lanes();
  for (int64_t k0 = 0; k0 < from.shape.k; k0 += kBlockK) {
    const int64_t k1 = std::min(from.shape.k, k0 + kBlockK);
    expand(from, panel, k0, k1, block.data());
    for (int64_t i = k0; i < k1; ++i) out[i] = block[(i - k0) * width + lane];
  }
}

void quantized_products(const QuantizedProduct* products, int64_t count) {
  const int64_t most = omp_in_parallel() ? 1 : omp_get_max_threads();
  int64_t rows = 0;
  double work = 0;
  for (int64_t i = 0; i < count; ++i) {
    const QuantizedProduct& p = products[i];
    if (p.m <= 0) continue;
    rows += p.w.shape.n;
    work += static_cast<double>(p.w.shape.n) * static_cast<double>(p.w.shape.k) *
            (static_cast<double>(p.m) / 32 + 0.25);
  }
  // A thread is worth waking for some microseconds of work, as in gemm_many.
  const int64_t threads = std::clamp<int64_t>(static_cast<int64_t>(work / 8000), 1, most);
  const int64_t strip = rows >= 2 * threads * kBlockRows ? kBlockRows : kLeastRows;
  std::vector<Task> tasks;
  for (int64_t i = 0; i < count; ++i) {
    const QuantizedProduct& p = products[i];
    for (int64_t n0 = 0; p.m > 0 && n0 < p.w.shape.n; n0 += strip)
      tasks.push_back({&p, n0, std::min(p.w.shape.n, n0 + strip)});
  }
  const Expand expand = expand_of_lanes();
  std::atomic<size_t> next{0};
  const auto run = [&] {
    static thread_local std::vector<float> block;
    for (size_t i = next++; i < tasks.size(); i = next++) run_task(tasks[i], expand, block);
  };
  const int team = static_cast<int>(std::min<int64_t>(threads, static_cast<int64_t>(tasks.size())));
  if (team <= 1) {
    run();
    return;
  }
#pragma omp parallel num_threads(team)
  run();
}

}  // namespace cohort::kernels
