#include "kernels/cpu/swiglu.h"

#include <algorithm>

#include "kernels/cpu/parallel.h"

namespace cohort::kernels {
namespace {

constexpr int64_t kElementsPerThread = 8192;

template <class A>
COHORT_INLINE Vector<A> sigmoid(const Vector<A>& x) {
  return A(1) / (A(1) + exp_of(-x));
}

}  // namespace

template <class T>
void swiglu_forward(const T* gate_up, int64_t rows, int64_t width, T* y) {
  using A = Sum<T>;
  parallel_for(
      rows, kElementsPerThread / std::max<int64_t>(width, 1) + 1, [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) {
          const T* gate = gate_up + row * 2 * width;
          const T* up = gate + width;
          each_vector<A>(width, [&](int64_t i, auto n) COHORT_LAMBDA {
            const auto g = load(gate + i, n);
            store(y + row * width + i, g * sigmoid<A>(g) * load(up + i, n), n);
          });
        }
      });
}

template <class T>
void swiglu_backward(const T* gate_up, const T* d_y, int64_t rows, int64_t width, T* d_gate_up) {
  using A = Sum<T>;
  parallel_for(
      rows, kElementsPerThread / std::max<int64_t>(width, 1) + 1, [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) {
          const T* gate = gate_up + row * 2 * width;
          T* d_gate = d_gate_up + row * 2 * width;
          each_vector<A>(width, [&](int64_t i, auto n) COHORT_LAMBDA {
            const auto g = load(gate + i, n), u = load(gate + width + i, n),
                       dy = load(d_y + row * width + i, n);
            const auto s = sigmoid<A>(g);
            store(d_gate + i, dy * u * (s * (A(1) + g * (A(1) - s))), n);
            store(d_gate + width + i, dy * (g * s), n);
          });
        }
      });
}

#define COHORT_INSTANTIATE(T)                                      \
  template void swiglu_forward<T>(const T*, int64_t, int64_t, T*); \
  template void swiglu_backward<T>(const T*, const T*, int64_t, int64_t, T*);
COHORT_INSTANTIATE(float)
COHORT_INSTANTIATE(double)
COHORT_INSTANTIATE(bf16)
#undef COHORT_INSTANTIATE

}  // namespace cohort::kernels
