// fp32 matrix product for the CPU, for machines on which LibTorch's is slow, and for results that
// do not depend on what else is computed.
//
// LibTorch's fp32 product is MKL, which takes its AVX2 code on a CPU that Intel did not make: half
// of what a core with two 512-bit FMA pipes can do. oneDNN inside LibTorch
// (mkldnn::_linear_pointwise) reaches the peak on large inputs, but its sums change with the number
// of rows (other kernels for few rows and for long K), its calls cost microseconds, and it has no
// grouped form; docs/benchmarks.md has the figures.
//
// Every element of C is one chain of fused multiply-adds over ascending k, whichever tile, thread
// or neighbour it has: a row of C has the same bits alone and within any batch, on any number of
// threads, as part of any list of products. AVX-512 and AVX2 give the same bits as each other.
#pragma once
#include <cstdint>

namespace cohort::kernels {

/// Which of the two operands is stored transposed. All matrices are row-major.
enum class GemmForm {
  kNN,  ///< C[m,n] = A[m,k] B[k,n]      (d_x = d_y W)
  kNT,  ///< C[m,n] = A[m,k] B[n,k]^T    (y = x W^T)
  kTN,  ///< C[m,n] = A[k,m]^T B[k,n]    (d_W = d_y^T x)
};

/// One product. Leading dimensions are counted in floats and at least the width of a stored row.
/// `c` overlaps neither operand. m, n, k may be 0; with k = 0 C becomes 0, or stays as it is.
struct GemmProduct {
  GemmForm form = GemmForm::kNN;
  int64_t m = 0, n = 0, k = 0;
  const float* a = nullptr;
  int64_t lda = 0;
  const float* b = nullptr;
  int64_t ldb = 0;
  float* c = nullptr;
  int64_t ldc = 0;
  bool accumulate = false;  ///< false: C is only written (what was there, NaN too, does not
                            ///< matter); true: the sums start from C.
  /// Of kNT: what gemm_pack made of b, which is then not read. Saves packing it anew in each call:
  /// with few rows, that is most of the work.
  const float* b_packed = nullptr;
};

/// The instruction sets that there are kernels for.
enum class GemmPath { kPortable, kAvx2, kAvx512 };

/// Whether this CPU and this build can run `path`.
bool gemm_path_available(GemmPath path);

/// The best of them here.
GemmPath gemm_best_path();

/// Whether `gemm` is expected to beat LibTorch's fp32 product: AVX-512 or AVX2 on a CPU that is not
/// Intel's. Depends on the CPU alone.
bool gemm_preferred();

/// Floats that gemm_pack writes for b [n, k].
int64_t gemm_packed_size(int64_t n, int64_t k, GemmPath path = gemm_best_path());
/// b [n, k], rows ldb apart, as GemmProduct::b_packed takes it: for products on the same path.
void gemm_pack(const float* b,
               int64_t ldb,
               int64_t n,
               int64_t k,
               float* packed,
               GemmPath path = gemm_best_path());

/// Computes C. Uses up to omp_get_max_threads() threads; one inside a parallel region.
void gemm(const GemmProduct& product, GemmPath path = gemm_best_path());

/// The grouped form: `count` products with C matrices that do not overlap, all tiles of all
/// products shared out among the threads at once, so that many small ones keep every thread busy.
void gemm_many(const GemmProduct* products, int64_t count, GemmPath path = gemm_best_path());

}  // namespace cohort::kernels
