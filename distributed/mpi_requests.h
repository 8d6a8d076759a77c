// Point-to-point messages of one collective: posted at once, pushed by polling, given up on when
// they take too long. MPI's counts are ints, so long messages travel in pieces.
#pragma once
#include <ATen/ATen.h>
#include <mpi.h>

#include <cstdint>
#include <string>
#include <vector>

#include "distributed/operation.h"

namespace cohort::distributed {

/// Messages longer than this many bytes are cut. For tests; 256 MiB at first.
void set_message_piece_bytes(int64_t bytes);

/// Throws Error with the operation, the axis and MPI's own words unless `code` is MPI_SUCCESS.
void check_mpi(int code, const Operation& operation);

class Requests {
 public:
  Requests(MPI_Comm comm, Operation operation);
  /// Never waits: what is still under way then (after an error only) keeps its buffers for ever.
  ~Requests();
  Requests(const Requests&) = delete;
  Requests& operator=(const Requests&) = delete;

  /// Memory that messages are read from or written to must outlive them: this keeps it.
  void keep(at::Tensor buffer) { buffers_.push_back(std::move(buffer)); }
  void receive(void* data, int64_t bytes, int from);
  void send(const void* data, int64_t bytes, int to);
  /// A request of MPI's own, to poll along with the rest.
  void add(MPI_Request request);

  /// Pushes progress; true once all have completed.
  bool test();
  /// Polls, ever more slowly, until all have completed. Throws Error after collective_timeout().
  void wait();
  bool done() const { return active_.empty(); }
  const Operation& operation() const { return operation_; }

 private:
  /// Completes what it can; returns how many did.
  int poll();
  [[noreturn]] void give_up(double seconds) const;

  MPI_Comm comm_;
  Operation operation_;
  int tag_;
  std::vector<MPI_Request> active_;
  std::vector<int> from_;      ///< Of each active one: the rank that it receives from, or -1.
  std::vector<int> expected_;  ///< Bytes of each receive.
  int64_t bytes_posted_ = 0;
  std::vector<at::Tensor> buffers_;
  std::vector<int> finished_;
  std::vector<MPI_Status> statuses_;
};

}  // namespace cohort::distributed
