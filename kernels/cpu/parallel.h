// Splitting a loop over threads, for the CPU twins.
#pragma once
#include <omp.h>

#include <cstdint>

namespace cohort::kernels {

/// Calls body(begin, end) on pieces of [0, n), one a thread; serial when n <= grain or inside a
/// parallel region already. The pieces depend on the number of threads: never let a sum depend on
/// them.
template <class Body>
void parallel_for(int64_t n, int64_t grain, const Body& body) {
  const int64_t most = grain > 0 ? (n + grain - 1) / grain : n;
  const int threads =
      omp_in_parallel()
          ? 1
          : static_cast<int>(most < omp_get_max_threads() ? most : omp_get_max_threads());
  if (threads <= 1) {
    if (n > 0) body(int64_t{0}, n);
    return;
  }
#pragma omp parallel num_threads(threads)
  {
    const int64_t i = omp_get_thread_num(), count = omp_get_num_threads();
    const int64_t begin = n * i / count, end = n * (i + 1) / count;
    if (begin < end) body(begin, end);
  }
}

}  // namespace cohort::kernels
