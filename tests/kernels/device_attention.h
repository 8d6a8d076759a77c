// What the tests of the attention kernels share: random problems over runs, a reference in double,
// and the comparison.
#pragma once
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "kernels/cuda/attention_backward.cuh"
#include "tests/kernels/device_runs.h"

// Apart for each copy of the kernels: their problems are types of their own.
namespace cohort::tests::COHORT_DEVICE {

using kernels::COHORT_DEVICE::AttentionProblem;
using kernels::COHORT_DEVICE::bf16;
namespace host = kernels::host;

inline const host::Schedule kSchedules[] = {
    {host::Order::kInOrder}, {host::Order::kReversed}, {host::Order::kRandom, 11}};

inline std::vector<bf16> random_bf16(int64_t n, std::mt19937& generator) {
  std::normal_distribution<float> normal;
  std::vector<bf16> out(static_cast<size_t>(n));
  for (auto& v : out) v = __float2bfloat16_rn(normal(generator));
  return out;
}

struct AttentionCase {
  std::vector<int64_t> run_start{0};
  AttentionProblem problem;
  std::vector<bf16> q, k, v, d_out;

  AttentionCase(const std::vector<int64_t>& lengths,
                int64_t heads,
                int64_t kv_heads,
                int64_t qk_dim,
                int64_t v_dim,
                unsigned seed = 3) {
    for (const auto n : lengths) {
      run_start.push_back(run_start.back() + n);
      problem.longest_run = std::max(problem.longest_run, n);
    }
    problem.num_tokens = run_start.back();
    problem.num_runs = static_cast<int64_t>(lengths.size());
    problem.heads = heads, problem.kv_heads = kv_heads;
    problem.qk_dim = qk_dim, problem.v_dim = v_dim;
    problem.scale = 1.3f / std::sqrt(static_cast<float>(qk_dim));
    std::mt19937 generator(seed);
    const int64_t T = problem.num_tokens;
    q = random_bf16(T * heads * qk_dim, generator);
    k = random_bf16(T * kv_heads * qk_dim, generator);
    v = random_bf16(T * kv_heads * v_dim, generator);
    d_out = random_bf16(T * heads * v_dim, generator);
  }
  AttentionProblem on_device() const {
    AttentionProblem p = problem;
    p.run_start = run_start.data();
    return p;
  }
};

/// Softmax attention and its gradients as the definitions have them, in double.
struct AttentionReference {
  std::vector<double> out, lse, d_q, d_k, d_v;

  explicit AttentionReference(const AttentionCase& c) {
    const auto& p = c.problem;
    const int64_t T = p.num_tokens, H = p.heads, G = p.kv_heads, Dq = p.qk_dim, Dv = p.v_dim;
    out.resize(T * H * Dv), lse.resize(H * T);
    d_q.resize(T * H * Dq), d_k.resize(T * G * Dq), d_v.resize(T * G * Dv);
    const auto at = [](const std::vector<bf16>& x, int64_t i) {
      return double{__bfloat162float(x[static_cast<size_t>(i)])};
    };
    for (int64_t r = 0; r < p.num_runs; ++r)
      for (int64_t t = c.run_start[r]; t < c.run_start[r + 1]; ++t)
        for (int64_t h = 0; h < H; ++h) {
          const int64_t first = c.run_start[r], n = t - first + 1, g = h * G / H;
          const int64_t q0 = (t * H + h) * Dq, o0 = (t * H + h) * Dv;
          std::vector<double> w(n), dw(n);
          double most = -INFINITY, sum = 0, delta = 0;
          for (int64_t j = 0; j < n; ++j) {
            double s = 0;
            for (int64_t d = 0; d < Dq; ++d)
              s += at(c.q, q0 + d) * at(c.k, ((first + j) * G + g) * Dq + d);
            w[j] = s * double{p.scale};
            most = std::max(most, w[j]);
          }
          for (auto& x : w) sum += x = std::exp(x - most);
          lse[h * T + t] = most + std::log(sum);
          for (int64_t j = 0; j < n; ++j) {
            w[j] /= sum;
            const int64_t v0 = ((first + j) * G + g) * Dv;
            for (int64_t d = 0; d < Dv; ++d) {
              out[o0 + d] += w[j] * at(c.v, v0 + d);
              dw[j] += at(c.d_out, o0 + d) * at(c.v, v0 + d);
              d_v[v0 + d] += w[j] * at(c.d_out, o0 + d);
            }
            delta += w[j] * dw[j];
          }
          for (int64_t j = 0; j < n; ++j) {
            const double ds = w[j] * (dw[j] - delta) * double{p.scale};
            const int64_t k0 = ((first + j) * G + g) * Dq;
            for (int64_t d = 0; d < Dq; ++d) {
              d_q[q0 + d] += ds * at(c.k, k0 + d);
              d_k[k0 + d] += ds * at(c.q, q0 + d);
            }
          }
        }
  }
};

/// The largest |is - want| / (1 + |want|); infinite where a value is not finite.
inline double farthest(const std::vector<bf16>& is, const std::vector<double>& want) {
  double worst = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    const double v = __bfloat162float(is[i]);
    worst = std::max(worst,
                     std::isfinite(v) ? std::abs(v - want[i]) / (1 + std::abs(want[i])) : INFINITY);
  }
  return worst;
}
inline double farthest(const std::vector<float>& is, const std::vector<double>& want) {
  double worst = 0;
  for (size_t i = 0; i < want.size(); ++i)
    worst = std::max(
        worst,
        std::isfinite(is[i]) ? std::abs(is[i] - want[i]) / (1 + std::abs(want[i])) : INFINITY);
  return worst;
}

struct ForwardResult {
  std::vector<bf16> out;
  std::vector<float> lse;
};
template <class Kernel>
ForwardResult run_forward(Kernel&& kernel, const AttentionCase& c) {
  const auto& p = c.problem;
  ForwardResult r;
  r.out.resize(static_cast<size_t>(p.num_tokens * p.heads * p.v_dim), bf16{0x7fc0});
  r.lse.resize(static_cast<size_t>(p.num_tokens * p.heads), NAN);
  kernel(c.on_device(), c.q.data(), c.k.data(), c.v.data(), r.out.data(), r.lse.data(), nullptr);
  return r;
}

struct BackwardResult {
  std::vector<bf16> d_q, d_k, d_v;
};
/// The gradients given what a forward pass left; each element begins as NaN.
template <class Kernel>
BackwardResult run_backward(Kernel&& kernel, const AttentionCase& c, const ForwardResult& forward) {
  const auto poison = [](size_t n) { return std::vector<bf16>(n, bf16{0x7fc0}); };
  BackwardResult r{poison(c.q.size()), poison(c.k.size()), poison(c.v.size())};
  std::vector<float> workspace(kernels::COHORT_DEVICE::attention_backward_workspace(c.problem) / 4,
                               NAN);
  kernel(c.on_device(),
         c.q.data(),
         c.k.data(),
         c.v.data(),
         forward.out.data(),
         forward.lse.data(),
         c.d_out.data(),
         r.d_q.data(),
         r.d_k.data(),
         r.d_v.data(),
         workspace.data(),
         nullptr);
  return r;
}
/// What an exact forward pass leaves, rounded.
inline ForwardResult exact_forward(const AttentionReference& want) {
  ForwardResult r;
  for (const double x : want.out) r.out.push_back(__float2bfloat16_rn(static_cast<float>(x)));
  r.lse.assign(want.lse.begin(), want.lse.end());
  return r;
}

/// Probabilities are rounded to bf16 (2^-9 relative) before they weight v or d_out, whose values
/// are about 1, and results are rounded once more: 2^-9 + 2^-9 of 1 + |value|, with a margin for
/// sums.
constexpr double kBf16Tolerance = 0.008;
/// P and dS, of which gradients are sums, are rounded to bf16: 2^-9 of each term.
constexpr double kGradientTolerance = 0.02;
/// fp32 sums of exact products of bf16.
constexpr double kLseTolerance = 1e-5;

/// Whether each of the three gradients of a kernel is wrong.
template <class Kernel>
bool backward_is_wrong(Kernel&& kernel, const AttentionCase& c) {
  const AttentionReference want(c);
  const auto is = run_backward(kernel, c, exact_forward(want));
  const auto wrong = [](const std::vector<bf16>& values, const std::vector<double>& right) {
    return !(farthest(values, right) < kGradientTolerance);
  };
  return wrong(is.d_q, want.d_q) && wrong(is.d_k, want.d_k) && wrong(is.d_v, want.d_v);
}

/// Whether a kernel is right under every schedule.
template <class Kernel>
bool forward_is_right(Kernel&& kernel, const AttentionCase& c) {
  const AttentionReference want(c);
  for (const auto& schedule : kSchedules) {
    const host::UseSchedule use(schedule);
    const auto is = run_forward(kernel, c);
    if (!(farthest(is.out, want.out) < kBf16Tolerance &&
          farthest(is.lse, want.lse) < kLseTolerance))
      return false;
  }
  return true;
}

// The kernels of this copy.
inline const auto portable_forward = [](auto... arguments) {
  kernels::COHORT_DEVICE::attention_forward(arguments...);
};
inline const auto hopper_forward = [](auto... arguments) {
  kernels::COHORT_DEVICE::attention_forward_hopper(arguments...);
};
inline const auto portable_backward = [](auto... arguments) {
  kernels::COHORT_DEVICE::attention_backward(arguments...);
};
inline const auto hopper_backward = [](auto... arguments) {
  kernels::COHORT_DEVICE::attention_backward_hopper(arguments...);
};

}  // namespace cohort::tests::COHORT_DEVICE
