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
  /// On a GPU the host does not wait: what is computed afterwards does, as after any collective.
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

/// A communicator of one rank: every operation is a copy where the tensor lives; no MPI, no NCCL.
std::shared_ptr<Communicator> local_communicator(std::string axis);

/// How long a rank waits inside a collective before it throws an Error that names the rank, the
/// axis, the operation, its number on that axis and the ranks still missing. 0: for ever. For all
/// communicators of the process; 600 at first.
void set_collective_timeout(double seconds);
double collective_timeout();

/// Throws Error unless `tensor` is contiguous, wherever it lives.
void check_contiguous(const at::Tensor& tensor, const char* operation);
/// Throws Error unless `tensor` is what MPI takes: contiguous, on the CPU.
void check_collective_tensor(const at::Tensor& tensor, const char* operation);
/// Throws Error unless the tensors' sizes fit an all_to_all_v between `ranks` ranks.
void check_all_to_all_rows(const at::Tensor& out,
                           const std::vector<int64_t>& receive_rows,
                           const at::Tensor& in,
                           const std::vector<int64_t>& send_rows,
                           int ranks);

}  // namespace cohort::distributed
