#include "kernels/cpu/rms_norm.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/cpu/parallel.h"

namespace cohort::kernels {
namespace {

constexpr int64_t kRowsPerPartial = 64;
constexpr int64_t kElementsPerThread = 16384;

template <class T>
void forward_row(const T* x, const T* weight, int64_t dim, double eps, T* y, Sum<T>* r) {
  using A = Sum<T>;
  Vector<A> squares = {};
  each_vector<A>(dim, [&](int64_t i, auto n) COHORT_LAMBDA {
    const auto v = load(x + i, n);
    squares += v * v;
  });
  const A scale = 1 / std::sqrt(sum_of<A>(squares) / A(dim) + A(eps));
  each_vector<A>(dim, [&](int64_t i, auto n) COHORT_LAMBDA {
    store(y + i, load(weight + i, n) * (load(x + i, n) * scale), n);
  });
  if (r) *r = scale;
}

/// One row of d_x; adds the row to the partial sum of d_weight.
template <class T>
void backward_row(
    const T* x, const T* weight, Sum<T> r, const T* d_y, int64_t dim, T* d_x, Sum<T>* partial) {
  using A = Sum<T>;
  Vector<A> products = {};
  each_vector<A>(dim, [&](int64_t i, auto n) COHORT_LAMBDA {
    const auto dy = load(d_y + i, n), xv = load(x + i, n);
    products += dy * load(weight + i, n) * xv;
    if (partial) store(partial + i, load(partial + i, n) + dy * (xv * r), n);
  });
  if (!d_x) return;
  const A pull = sum_of<A>(products) / A(dim) * r * r;
  each_vector<A>(dim, [&](int64_t i, auto n) COHORT_LAMBDA {
    const auto g = load(d_y + i, n) * load(weight + i, n);
    store(d_x + i, (g - load(x + i, n) * pull) * r, n);
  });
}

}  // namespace

template <class T>
void rms_norm_forward(const T* x,
                      int64_t x_stride,
                      const T* weight,
                      int64_t rows,
                      int64_t dim,
                      double eps,
                      T* y,
                      Sum<T>* r) {
  parallel_for(
      rows, kElementsPerThread / std::max<int64_t>(dim, 1) + 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i)
          forward_row<T>(x + i * x_stride, weight, dim, eps, y + i * dim, r ? r + i : nullptr);
      });
}

template <class T>
void rms_norm_backward(const T* x,
                       int64_t x_stride,
                       const T* weight,
                       const Sum<T>* r,
                       const T* d_y,
                       int64_t rows,
                       int64_t dim,
                       T* d_x,
                       T* d_weight) {
  using A = Sum<T>;
  const int64_t chunks = (rows + kRowsPerPartial - 1) / kRowsPerPartial;
  std::vector<A> partials(d_weight ? chunks * dim : 0);
  const int64_t grain = kElementsPerThread / std::max<int64_t>(kRowsPerPartial * dim, 1) + 1;
  parallel_for(chunks, grain, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c)
      for (int64_t i = c * kRowsPerPartial; i < std::min(rows, (c + 1) * kRowsPerPartial); ++i)
        backward_row<T>(x + i * x_stride,
                        weight,
                        r[i],
                        d_y + i * dim,
                        dim,
                        d_x ? d_x + i * dim : nullptr,
                        d_weight ? partials.data() + c * dim : nullptr);
  });
  if (!d_weight) return;
  std::vector<A> total(dim);
  for (int64_t c = 0; c < chunks; ++c)
    for (int64_t j = 0; j < dim; ++j) total[j] += partials[c * dim + j];
  for (int64_t j = 0; j < dim; ++j) from_sum(total[j], d_weight[j]);
}

#define COHORT_INSTANTIATE(T)                                              \
  template void rms_norm_forward<T>(                                       \
      const T*, int64_t, const T*, int64_t, int64_t, double, T*, Sum<T>*); \
  template void rms_norm_backward<T>(                                      \
      const T*, int64_t, const T*, const Sum<T>*, const T*, int64_t, int64_t, T*, T*);
COHORT_INSTANTIATE(float)
COHORT_INSTANTIATE(double)
COHORT_INSTANTIATE(bf16)
#undef COHORT_INSTANTIATE

}  // namespace cohort::kernels
