// Collectives over one axis of the mesh. Every rank of the axis calls the same operations in the
// same order.
#pragma once
#include <ATen/ATen.h>

#include <memory>
#include <string>
#include <vector>

namespace cohort::distributed {

enum class ReduceOp { kSum, kMax, kMin };

/// A collective under way.
class Work {
 public:
  virtual ~Work() = default;
  virtual bool test() = 0;  ///< Pushes progress; true once done.
  virtual void wait() = 0;
};

/// Tensors are contiguous and on the CPU (MPI) or one GPU (NCCL): fp32, fp64, bf16 and int64. Sums
/// of bf16 are taken in fp32. Errors end the job with the operation, axis and rank in the message.
class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual const std::string& axis() const = 0;  ///< "world", "dp", "ep", "edp": for messages.

  virtual void barrier() = 0;
  virtual void all_reduce(
      at::Tensor& tensor,
      ReduceOp op = ReduceOp::kSum) = 0;  ///< In place. The same bits on every rank.
  virtual void broadcast(at::Tensor& tensor, int root) = 0;
  /// out[size * n] <- in[n] of each rank in order. `in` may be the own slice of `out`.
  virtual void all_gather(at::Tensor& out, const at::Tensor& in) = 0;
  /// out[n] <- sum over ranks of in[size * n]'s own slice; may overlap with computation until the
  /// Work is waited for.
  virtual std::unique_ptr<Work> reduce_scatter_async(at::Tensor& out, const at::Tensor& in) = 0;
  /// One int64 to and from each rank.
  virtual void all_to_all_counts(const int64_t* send, int64_t* receive, int64_t per_rank) = 0;
  /// Rows (dim 0) of `in` go to ranks in order, send_rows[r] each; `out` receives receive_rows[r]
  /// from each.
  virtual void all_to_all_v(at::Tensor& out,
                            const std::vector<int64_t>& receive_rows,
                            const at::Tensor& in,
                            const std::vector<int64_t>& send_rows) = 0;
  /// Each rank's text, on every rank, in order.
  virtual std::vector<std::string> all_gather_text(const std::string& text) = 0;
};

}  // namespace cohort::distributed
