// The device kernels: microseconds, GB/s and the share of what a device copy reaches, or TFLOP/s
// and the share of what the tensor cores do in bf16 at the top clock, one JSON line a kernel and
// shape. Each run is timed by itself, after 256 MB of writes that empty the second-level cache, and
// the median of 21 counts. Bytes are those that must move, each once. Without a GPU it says so and
// runs nothing.
//   build/bench/kernels
#include <cstdio>
#ifndef __CUDACC__

int main() {
  std::fprintf(stderr, "bench/kernels: built without nvcc: nothing was run\n");
  return 0;
}

#else
#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "kernels/cuda/attention_backward.cuh"
#include "kernels/cuda/attention_decode.cuh"
#include "kernels/cuda/attention_forward.cuh"
#include "kernels/cuda/dispatch.cuh"
#include "kernels/cuda/elementwise.cuh"
#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/rms_norm.cuh"
#include "kernels/cuda/router.cuh"
#include "kernels/cuda/token_log_probs.cuh"

namespace {

using namespace cohort::kernels::cuda;

constexpr int kRuns = 21;
constexpr size_t kFlushBytes = size_t{256} << 20;

__device__ float uniform(uint64_t i) {
  i = (i ^ i >> 30) * 0xbf58476d1ce4e5b9u;
  i = (i ^ i >> 27) * 0x94d049bb133111ebu;
  return static_cast<float>((i ^ i >> 31) >> 40) * (2.0f / (1 << 24)) - 1.0f;
}
__device__ void set_value(float& to, int64_t i, uint64_t seed) {
  to = uniform(static_cast<uint64_t>(i) + seed * 0x9e3779b97f4a7c15u);
}
__device__ void set_value(bf16& to, int64_t i, uint64_t seed) {
  to = __float2bfloat16_rn(uniform(static_cast<uint64_t>(i) + seed * 0x9e3779b97f4a7c15u));
}
__device__ void set_value(int64_t& to, int64_t i, uint64_t bound) {
  to = i * 7919 % static_cast<int64_t>(bound);
}
template <class T>
__global__ void fill_kernel(T* p, int64_t n, uint64_t seed) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * 256 + threadIdx.x;
  if (i < n) set_value(p[i], i, seed);
}

/// Device memory with values of its own: uniform in [-1, 1), or places below `seed` for integers.
template <class T>
class Buffer {
 public:
  explicit Buffer(int64_t n, uint64_t seed = 1) {
    check(cudaMalloc(&p_, static_cast<size_t>(n) * sizeof(T)), "allocating device memory");
    launch(
        fill_kernel<T>, Grid(static_cast<unsigned>((n + 255) / 256), 256, 0, nullptr), p_, n, seed);
  }
  explicit Buffer(const std::vector<T>& values) {
    const size_t bytes = values.size() * sizeof(T);
    check(cudaMalloc(&p_, bytes), "allocating device memory");
    check(cudaMemcpy(p_, values.data(), bytes, cudaMemcpyHostToDevice), "filling device memory");
  }
  ~Buffer() { cudaFree(p_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  operator T*() const { return p_; }

 private:
  T* p_ = nullptr;
};

class Bench {
 public:
  Bench() : flush_(kFlushBytes / sizeof(float)) {
    cudaDeviceProp properties;
    check(cudaGetDeviceProperties(&properties, 0), "reading the device's name");
    device_ = properties.name;
    int kilohertz = 0;
    check(cudaDeviceGetAttribute(&kilohertz, cudaDevAttrClockRate, 0), "reading the clock");
    // Dense bf16 FLOPs a clock and multiprocessor of sm_80 and of sm_90.
    const double flops = properties.major >= 9 ? 4096 : 2048;
    tensor_limit_ = flops * properties.multiProcessorCount * kilohertz / 1e9;
    check(cudaEventCreate(&begin_), "making an event");
    check(cudaEventCreate(&end_), "making an event");
    const size_t bytes = size_t{1} << 30;
    const Buffer<float> from(bytes / sizeof(float)), to(bytes / sizeof(float));
    const double us = microseconds([&] {
      check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, nullptr), "copying");
    });
    limit_ = 2.0 * static_cast<double>(bytes) / us / 1e3;
    print("copy 1 GiB", us, limit_, limit_, "GB/s");
  }
  ~Bench() {
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
  }

  void run(const std::string& name, double bytes, const std::function<void()>& work) {
    const double us = microseconds(work);
    print(name, us, bytes / us / 1e3, limit_, "GB/s");
  }
  void compute(const std::string& name, double flops, const std::function<void()>& work) {
    const double us = microseconds(work);
    print(name, us, flops / us / 1e6, tensor_limit_, "TFLOP/s");
  }

 private:
  double microseconds(const std::function<void()>& work) {
    std::vector<float> times;
    for (int i = 0; i < kRuns + 2; ++i) {
      check(cudaMemsetAsync(flush_, i, kFlushBytes, nullptr), "emptying the cache");
      check(cudaEventRecord(begin_), "timing");
      work();
      check(cudaEventRecord(end_), "timing");
      check(cudaEventSynchronize(end_), "timing");
      float ms = 0;
      check(cudaEventElapsedTime(&ms, begin_, end_), "timing");
      if (i >= 2) times.push_back(ms);
    }
    std::sort(times.begin(), times.end());
    return times[kRuns / 2] * 1e3;
  }
  void print(
      const std::string& name, double us, double rate, double limit, const char* unit) const {
    std::printf(
        "{\"name\":\"%s\",\"ours\":%.1f,\"peer\":null,\"ratio\":null,\"unit\":\"%s\","
        "\"microseconds\":%.1f,\"limit\":%.1f,\"ratio_to_limit\":%.3f,\"device\":\"%s\"}\n",
        name.c_str(),
        rate,
        unit,
        us,
        limit,
        rate / limit,
        device_.c_str());
    std::fflush(stdout);
  }

  Buffer<float> flush_;
  std::string device_;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
  double limit_ = 0, tensor_limit_ = 0;
};

std::string shape_name(std::initializer_list<int64_t> sizes, const char* type) {
  std::string text = " ";
  for (const int64_t size : sizes) text += (text.size() > 1 ? "x" : "") + std::to_string(size);
  return text + " " + type;
}

/// Router and dispatch of T tokens of width D to K of E experts.
template <class Row>
void dispatch(Bench& bench, const RouterShape& shape, int64_t D, const char* type) {
  const int64_t T = shape.T, E = shape.E, K = shape.K, pairs = T * K;
  const double row = static_cast<double>(D) * sizeof(Row);
  const std::string sizes = shape_name({T, D, E, K}, type);
  const Buffer<float> logits(T * E, 1), bias(E, 2), scores(T * E), gate(pairs), d_gate(pairs, 3);
  const Buffer<int64_t> expert(pairs), count(E), pair_at(pairs), place_of(pairs),
      workspace(static_cast<int64_t>(sort_pairs_workspace(pairs, E)) / 8 + 1);
  bench.run("route" + sizes, 8.0 * T * E + 12.0 * pairs, [&] {
    route<float>(shape, logits, bias, scores, expert, gate, nullptr);
  });
  bench.run("route_backward" + sizes, 8.0 * T * E + 12.0 * pairs, [&] {
    route_backward<float>(shape, scores, expert, d_gate, nullptr, logits, nullptr);
  });
  bench.run("sort_pairs" + sizes, 24.0 * pairs, [&] {
    sort_pairs(expert, pairs, E, count, pair_at, place_of, workspace, nullptr);
  });
  const Buffer<Row> tokens(T * D, 4), rows(pairs * D, 5), d_rows(pairs * D, 6);
  // Each token's row is read K times, by others' leave from the second-level cache.
  bench.run("gather_rows" + sizes, row * (T + pairs), [&] {
    gather_rows<Row>(tokens, pair_at, K, pairs, D, rows, nullptr);
  });
  bench.run("scatter_rows" + sizes, row * 2 * pairs, [&] {
    scatter_rows<Row>(rows, pair_at, pairs, D, d_rows, nullptr);
  });
  bench.run("combine_rows" + sizes, row * (T + pairs), [&] {
    combine_rows<Row>(rows, place_of, gate, T, K, D, tokens, nullptr);
  });
  bench.run("combine_rows_backward" + sizes, row * (T + 2 * pairs), [&] {
    combine_rows_backward<Row>(tokens, rows, place_of, gate, T, K, D, d_rows, d_gate, nullptr);
  });
}

/// Documents of n tokens, 16384 tokens in all. FLOPs are the least: 2 (qk + v) and 2 (3 qk + 2 v) a
/// head, query and visible key.
void attention(Bench& bench, int64_t n, int64_t heads, int64_t kv_heads, int64_t qk, int64_t v) {
  AttentionProblem p;
  p.num_tokens = 16384, p.num_runs = p.num_tokens / n, p.longest_run = n;
  p.heads = heads, p.kv_heads = kv_heads, p.qk_dim = qk, p.v_dim = v;
  p.scale = 0.1f;
  std::vector<int64_t> starts;
  for (int64_t r = 0; r <= p.num_runs; ++r) starts.push_back(r * n);
  const Buffer<int64_t> run_start(starts);
  p.run_start = run_start;
  const int64_t T = p.num_tokens;
  const Buffer<bf16> q(T * heads * qk, 1), k(T * kv_heads * qk, 2), values(T * kv_heads * v, 3),
      out(T * heads * v), d_out(T * heads * v, 4), d_q(T * heads * qk), d_k(T * kv_heads * qk),
      d_v(T * kv_heads * v);
  const Buffer<float> lse(T * heads),
      workspace(static_cast<int64_t>(attention_backward_workspace(p)) / 4);
  const double pairs = static_cast<double>(T * heads) * static_cast<double>(n + 1) / 2;
  const std::string sizes = shape_name({p.num_runs, n, heads, kv_heads, qk, v}, "bf16");
  bench.compute("attention_forward" + sizes, 2.0 * (qk + v) * pairs, [&] {
    attention_forward(p, q, k, values, out, lse, nullptr);
  });
  auto* working = static_cast<float*>(workspace);
  bench.compute("attention_backward" + sizes, 2.0 * (3 * qk + 2 * v) * pairs, [&] {
    attention_backward(p, q, k, values, out, lse, d_out, d_q, d_k, d_v, working, nullptr);
  });
  if (!device_is_hopper()) return;
  bench.compute("attention_forward by wgmma" + sizes, 2.0 * (qk + v) * pairs, [&] {
    attention_forward_hopper(p, q, k, values, out, lse, nullptr);
  });
  bench.compute("attention_backward by wgmma" + sizes, 2.0 * (3 * qk + 2 * v) * pairs, [&] {
    attention_backward_hopper(p, q, k, values, out, lse, d_out, d_q, d_k, d_v, working, nullptr);
  });
}

/// A token of each of `sequences` over n rows of its cache, in blocks of 64 that lie anywhere.
/// Bytes are the rows', once.
void decode(Bench& bench, int64_t sequences, int64_t n, int64_t heads) {
  DecodeAttentionProblem p;
  p.queries = sequences, p.heads = heads, p.longest = n;
  const int64_t blocks = sequences * n / 64;
  std::vector<int64_t> spans, first_span{0}, position(sequences, n - 1);
  for (int64_t s = 0; s < sequences; ++s) {
    for (int64_t b = 0; b < n / 64; ++b) {
      spans.push_back((s * (n / 64) + b) * 7919 % blocks * 64);
      spans.push_back(64);
    }
    first_span.push_back(static_cast<int64_t>(spans.size() / 2));
  }
  const Buffer<int64_t> on_spans(spans), on_first(first_span), on_position(position);
  p.spans = on_spans, p.first_span = on_first, p.position = on_position;
  p.scale = 0.1f;
  const Buffer<bf16> q(sequences * heads * p.row, 1), cache(blocks * 64 * p.row, 2),
      out(sequences * heads * p.latent_dim);
  const Buffer<float> workspace(static_cast<int64_t>(attention_decode_workspace(p)) / 4);
  bench.run(
      "attention_decode" + shape_name({sequences, n, heads}, "bf16"),
      2.0 * static_cast<double>(sequences * n * p.row),
      [&] { attention_decode<bf16>(p, q, cache, out, static_cast<float*>(workspace), nullptr); });
}

template <class T>
void rows(Bench& bench, const char* type) {
  const double size = sizeof(T);
  {
    const int64_t rows = 8192, dim = 7168;
    const Buffer<T> x(rows * dim), weight(dim), y(rows * dim), d_x(rows * dim), d_weight(dim);
    const Buffer<float> r(rows), workspace(static_cast<int64_t>(rms_norm_workspace(rows, dim)) / 4);
    const std::string sizes = shape_name({rows, dim}, type);
    bench.run("rms_norm_forward" + sizes, 2 * size * rows * dim, [&] {
      rms_norm_forward<T>(x, dim, weight, rows, dim, 1e-6f, y, r, nullptr);
    });
    bench.run("rms_norm_backward" + sizes, 3 * size * rows * dim, [&] {
      rms_norm_backward<T>(
          x, dim, weight, r, y, rows, dim, d_x, d_weight, static_cast<float*>(workspace), nullptr);
    });
  }
  {
    const int64_t rows = 32768, width = 2048;
    const Buffer<T> gate_up(rows * 2 * width), y(rows * width), d(rows * 2 * width);
    const std::string sizes = shape_name({rows, width}, type);
    bench.run("swiglu_forward" + sizes, 3 * size * rows * width, [&] {
      swiglu_forward<T>(gate_up, rows, width, y, nullptr);
    });
    bench.run("swiglu_backward" + sizes, 5 * size * rows * width, [&] {
      swiglu_backward<T>(gate_up, y, rows, width, d, nullptr);
    });
  }
  {
    const RopeShape shape{{4096 * 8192, 8192, 64}, 2, 4096, 128, 64, true, 1};
    const int64_t n = shape.batch * shape.length * shape.heads * shape.dim;
    const Buffer<T> x(n), y(n);
    const Buffer<float> cos(4096 * 32, 1), sin(4096 * 32, 2);
    bench.run("rope" + shape_name({2, 4096, 128, 64}, type), 2 * size * n, [&] {
      rope<T>(shape, x, cos, sin, y, nullptr);
    });
  }
  {
    const int64_t rows = 4096, classes = 16160;  // an eighth of V3's vocabulary
    const Buffer<T> logits(rows * classes);
    const Buffer<int64_t> target(rows, classes);
    const Buffer<float> state(rows * 4), coefficient(rows);
    const LogitTile<T> tile{logits, target, rows, classes, 0, 1.0f};
    auto* states = reinterpret_cast<SoftmaxState*>(static_cast<float*>(state));
    const std::string sizes = shape_name({rows, classes}, type);
    bench.run("add_logit_tile" + sizes, size * rows * classes, [&] {
      add_logit_tile<T>(tile, states, nullptr);
    });
    bench.run("logit_tile_gradient" + sizes, 2 * size * rows * classes, [&] {
      logit_tile_gradient<T>(tile, states, coefficient, nullptr);
    });
  }
  {
    const int64_t n = int64_t{64} << 20;
    const Buffer<T> grad(n);
    const Buffer<float> weight(n), m(n);
    const Buffer<float> v(n);
    const Buffer<bf16> rounded(n);
    const AdamWTensor<T> tensor{weight, grad, m, v, rounded, n};
    const AdamWStep step{0.999f, 1, 0.9f, 0.1f, 0.95f, 0.05f, 1, 1e-8f, -1e-4f};
    bench.run("adamw" + shape_name({n}, type), (26 + size) * n, [&] {
      adamw<T>(&tensor, 1, step, nullptr);
    });
  }
}

}  // namespace

int main() {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::fprintf(stderr, "bench/kernels: no NVIDIA GPU here: nothing was run\n");
    return 0;
  }
  try {
    Bench bench;
    const RouterShape v3{8192, 256, 8, 8, 4, Scoring::kSigmoid, true, 2.5f};
    dispatch<bf16>(bench, v3, 7168, "bf16");
    const RouterShape small{32768, 64, 6, 1, 1, Scoring::kSoftmax, false, 1.0f};
    dispatch<bf16>(bench, small, 2048, "bf16");
    dispatch<float>(bench, small, 2048, "fp32");
    for (const int64_t n : {1024, 4096, 16384}) attention(bench, n, 128, 128, 192, 128);
    attention(bench, 4096, 32, 8, 128, 128);
    attention(bench, 4096, 32, 8, 64, 64);
    for (const int64_t heads : {16, 128}) decode(bench, 64, 4096, heads);
    rows<bf16>(bench, "bf16");
    rows<float>(bench, "fp32");
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench/kernels: %s\n", error.what());
    return 1;
  }
  return 0;
}
#endif
