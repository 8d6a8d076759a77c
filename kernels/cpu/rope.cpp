#include "kernels/cpu/rope.h"

#include <vector>

#include "kernels/cpu/parallel.h"

namespace cohort::kernels {

template <class T>
void rope(const T* x,
          const int64_t (&x_strides)[3],
          const Sum<T>* cos,
          const Sum<T>* sin,
          int64_t batch,
          int64_t length,
          int64_t heads,
          int64_t dim,
          bool interleave,
          int sign,
          T* y) {
  using A = Sum<T>;
  parallel_for(batch * length, 16384 / (heads * dim + 1) + 1, [&](int64_t begin, int64_t end) {
    std::vector<A> row(dim);
    for (int64_t token = begin; token < end; ++token) {
      const int64_t b = token / length, position = token % length, half = dim / 2;
      for (int64_t h = 0; h < heads; ++h) {
        const T* from = x + b * x_strides[0] + position * x_strides[1] + h * x_strides[2];
        T* to = y + (token * heads + h) * dim;
        for (int64_t i = 0; i < dim; ++i) row[i] = to_sum(from[i]);
        rotate_row<A>(
            row.data(), cos + position * half, sin + position * half, dim, interleave, A(sign));
        for (int64_t i = 0; i < dim; ++i) from_sum(row[i], to[i]);
      }
    }
  });
}

#define COHORT_INSTANTIATE(T)                \
  template void rope<T>(const T*,            \
                        const int64_t(&)[3], \
                        const Sum<T>*,       \
                        const Sum<T>*,       \
                        int64_t,             \
                        int64_t,             \
                        int64_t,             \
                        int64_t,             \
                        bool,                \
                        int,                 \
                        T*);
COHORT_INSTANTIATE(float)
COHORT_INSTANTIATE(double)
COHORT_INSTANTIATE(bf16)
#undef COHORT_INSTANTIATE

}  // namespace cohort::kernels
