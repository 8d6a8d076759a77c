#include "distributed/communicator_mpi.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <mutex>

#include "core/base/error.h"
#include "distributed/mpi_requests.h"
#include "distributed/rank_sums.h"

namespace cohort::distributed {
namespace {

// Up to here an all_reduce sends everything to everyone: one round of messages. Above, each rank
// reduces its slice and the slices are gathered: two rounds, but only twice the bytes on any rank.
constexpr int64_t kOneRoundBytes = 32 << 10;
constexpr int64_t kBroadcastBytes = int64_t{1} << 30;

/// Memory for what arrives, used again by later operations: fresh pages cost as much as a copy.
class ScratchPool {
 public:
  at::Tensor take(int64_t bytes) {
    auto best = free_.end();
    for (auto it = free_.begin(); it != free_.end(); ++it)
      if (it->numel() >= bytes && (best == free_.end() || it->numel() < best->numel())) best = it;
    if (best == free_.end()) return at::empty({bytes}, at::kByte);
    at::Tensor taken = *best;
    free_.erase(best);
    return taken;
  }
  void give_back(at::Tensor scratch) {
    if (scratch.numel() > 0) free_.push_back(std::move(scratch));
    if (free_.size() > kMostFree) {
      free_.erase(std::min_element(free_.begin(), free_.end(), [](const auto& a, const auto& b) {
        return a.numel() < b.numel();
      }));
    }
  }

 private:
  static constexpr size_t kMostFree = 4;
  std::vector<at::Tensor> free_;
};

int64_t num_bytes(const at::Tensor& tensor) {
  return tensor.numel() * static_cast<int64_t>(tensor.element_size());
}
char* bytes_of(const at::Tensor& tensor) { return static_cast<char*>(tensor.data_ptr()); }

/// Slices arrive in scratch, or are read where they are when they are this rank's own; the sum is
/// taken once all are there.
class ReduceScatterWork : public Work {
 public:
  ReduceScatterWork(MPI_Comm comm,
                    Operation operation,
                    at::Tensor out,
                    at::Tensor in,
                    std::shared_ptr<ScratchPool> pool,
                    int size)
      : out_(std::move(out)),
        in_(std::move(in)),
        pool_(std::move(pool)),
        requests_(comm, std::move(operation)) {
    const int rank = requests_.operation().rank;
    const int64_t slice = num_bytes(out_);
    scratch_ = pool_->take(slice * (size - 1));
    requests_.keep(scratch_);
    requests_.keep(in_);
    char* arrival = bytes_of(scratch_);
    for (int from = 0; from < size; ++from) {
      if (from == rank) {
        rows_.push_back(bytes_of(in_) + slice * rank);
        continue;
      }
      rows_.push_back(arrival);
      requests_.receive(arrival, slice, from);
      arrival += slice;
    }
    for (int step = 1; step < size; ++step) {
      const int to = (rank + step) % size;
      requests_.send(bytes_of(in_) + slice * to, slice, to);
    }
  }

  bool test() override {
    if (!finished_ && requests_.test()) finish();
    return finished_;
  }
  void wait() override {
    if (finished_) return;
    requests_.wait();
    finish();
  }

 private:
  void finish() {
    reduce_rows(out_.data_ptr(), rows_, out_.numel(), out_.scalar_type(), ReduceOp::kSum);
    pool_->give_back(std::move(scratch_));
    finished_ = true;
  }

  at::Tensor out_, in_, scratch_;
  std::shared_ptr<ScratchPool> pool_;
  std::vector<const void*> rows_;
  Requests requests_;
  bool finished_ = false;
};

class MpiCommunicator : public Communicator {
 public:
  MpiCommunicator(MPI_Comm comm, std::string axis)
      : comm_(comm), axis_(std::move(axis)), pool_(std::make_shared<ScratchPool>()) {
    MPI_Comm_rank(comm_, &rank_);
    MPI_Comm_size(comm_, &size_);
    MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN);
  }

  ~MpiCommunicator() override {
    int finalized = 0;
    MPI_Finalized(&finalized);
    // Freeing is collective: one rank alone with an exception must not begin it.
    if (!finalized && std::uncaught_exceptions() == 0) MPI_Comm_free(&comm_);
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  const std::string& axis() const override { return axis_; }

  void barrier() override {
    Requests requests(comm_, begin("barrier"));
    MPI_Request request;
    check_mpi(MPI_Ibarrier(comm_, &request), requests.operation());
    requests.add(request);
    requests.wait();
  }

  void broadcast(at::Tensor& tensor, int root) override {
    check_collective_tensor(tensor, "broadcast");
    COHORT_CHECK(
        root >= 0 && root < size_, "broadcast from rank {} on axis {} of {}", root, axis_, size_);
    Requests requests(comm_, begin("broadcast"));
    requests.keep(tensor);
    const int64_t bytes = num_bytes(tensor);
    for (int64_t at = 0; at < bytes; at += kBroadcastBytes) {
      const int count = static_cast<int>(std::min(kBroadcastBytes, bytes - at));
      MPI_Request request;
      check_mpi(MPI_Ibcast(bytes_of(tensor) + at, count, MPI_BYTE, root, comm_, &request),
                requests.operation());
      requests.add(request);
    }
    requests.wait();
  }

  void all_reduce(at::Tensor& tensor, ReduceOp op) override {
    check_collective_tensor(tensor, "all_reduce");
    if (num_bytes(tensor) <= kOneRoundBytes)
      all_reduce_in_one_round(tensor, op);
    else
      all_reduce_by_slices(tensor, op);
  }

  void all_gather(at::Tensor& out, const at::Tensor& in) override {
    check_collective_tensor(out, "all_gather");
    check_collective_tensor(in, "all_gather");
    COHORT_CHECK(out.numel() == in.numel() * size_ && out.scalar_type() == in.scalar_type(),
                 "all_gather of {} elements from {} ranks into {}",
                 in.numel(),
                 size_,
                 out.numel());
    const int64_t slice = num_bytes(in);
    std::vector<int64_t> bounds(size_ + 1);
    for (int r = 0; r <= size_; ++r) bounds[r] = r * slice;
    Requests requests(comm_, begin("all_gather"));
    requests.keep(out);
    requests.keep(in);
    gather_slices(requests, bytes_of(out), bounds, bytes_of(in));
    if (slice > 0 && bytes_of(out) + slice * rank_ != bytes_of(in))
      std::memcpy(bytes_of(out) + slice * rank_, bytes_of(in), slice);
    requests.wait();
  }

  std::unique_ptr<Work> reduce_scatter_async(at::Tensor& out, const at::Tensor& in) override {
    check_collective_tensor(out, "reduce_scatter");
    check_collective_tensor(in, "reduce_scatter");
    COHORT_CHECK(in.numel() == out.numel() * size_ && out.scalar_type() == in.scalar_type(),
                 "reduce_scatter of {} elements over {} ranks into {}",
                 in.numel(),
                 size_,
                 out.numel());
    return std::make_unique<ReduceScatterWork>(
        comm_, begin("reduce_scatter"), out, in, pool_, size_);
  }

  void all_to_all_counts(const int64_t* send, int64_t* receive, int64_t per_rank) override {
    Requests requests(comm_, begin("all_to_all_counts"));
    const int64_t bytes = per_rank * static_cast<int64_t>(sizeof(int64_t));
    for (int step = 1; step < size_; ++step) {
      const int from = (rank_ + size_ - step) % size_;
      requests.receive(receive + from * per_rank, bytes, from);
    }
    for (int step = 1; step < size_; ++step) {
      const int to = (rank_ + step) % size_;
      requests.send(send + to * per_rank, bytes, to);
    }
    std::copy_n(send + rank_ * per_rank, per_rank, receive + rank_ * per_rank);
    requests.wait();
  }

  void all_to_all_v(at::Tensor& out,
                    const std::vector<int64_t>& receive_rows,
                    const at::Tensor& in,
                    const std::vector<int64_t>& send_rows) override {
    check_collective_tensor(out, "all_to_all_v");
    check_collective_tensor(in, "all_to_all_v");
    check_all_to_all_rows(out, receive_rows, in, send_rows, size_);
    int64_t row = static_cast<int64_t>(in.element_size());
    for (const int64_t n : in.sizes().slice(1)) row *= n;
    const auto starts = [&](const std::vector<int64_t>& rows) {
      std::vector<int64_t> at(size_ + 1, 0);
      for (int r = 0; r < size_; ++r) at[r + 1] = at[r] + rows[r] * row;
      return at;
    };
    const std::vector<int64_t> to_receive = starts(receive_rows), to_send = starts(send_rows);
    COHORT_CHECK(send_rows[rank_] == receive_rows[rank_],
                 "all_to_all_v: {} rows from rank {} to itself, but it expects {}",
                 send_rows[rank_],
                 rank_,
                 receive_rows[rank_]);
    Requests requests(comm_, begin("all_to_all_v"));
    requests.keep(out);
    requests.keep(in);
    for (int step = 1; step < size_; ++step) {
      const int from = (rank_ + size_ - step) % size_;
      requests.receive(bytes_of(out) + to_receive[from], receive_rows[from] * row, from);
    }
    for (int step = 1; step < size_; ++step) {
      const int to = (rank_ + step) % size_;
      requests.send(bytes_of(in) + to_send[to], send_rows[to] * row, to);
    }
    if (send_rows[rank_] * row > 0) {
      std::memcpy(
          bytes_of(out) + to_receive[rank_], bytes_of(in) + to_send[rank_], send_rows[rank_] * row);
    }
    requests.wait();
  }

  std::vector<std::string> all_gather_text(const std::string& text) override {
    std::vector<int64_t> own(size_, static_cast<int64_t>(text.size())), lengths(size_);
    all_to_all_counts(own.data(), lengths.data(), 1);
    std::vector<int64_t> bounds(size_ + 1, 0);
    for (int r = 0; r < size_; ++r) bounds[r + 1] = bounds[r] + lengths[r];
    std::string all(bounds[size_], '\0');
    Requests requests(comm_, begin("all_gather_text"));
    gather_slices(requests, all.data(), bounds, text.data());
    requests.wait();
    std::vector<std::string> texts;
    for (int r = 0; r < size_; ++r)
      texts.push_back(r == rank_ ? text : all.substr(bounds[r], lengths[r]));
    return texts;
  }

 private:
  Operation begin(const char* name) { return {name, axis_, rank_, sequence_++}; }

  /// Posts messages that put each rank's slice, bytes [bounds[r], bounds[r + 1]) of `all`, on every
  /// other rank; the own one is sent from `own`.
  void gather_slices(Requests& requests,
                     char* all,
                     const std::vector<int64_t>& bounds,
                     const char* own) {
    for (int step = 1; step < size_; ++step) {
      const int from = (rank_ + size_ - step) % size_;
      requests.receive(all + bounds[from], bounds[from + 1] - bounds[from], from);
    }
    for (int step = 1; step < size_; ++step)
      requests.send(own, bounds[rank_ + 1] - bounds[rank_], (rank_ + step) % size_);
  }

  void all_reduce_in_one_round(at::Tensor& tensor, ReduceOp op) {
    const int64_t bytes = num_bytes(tensor);
    at::Tensor scratch = pool_->take(bytes * size_);
    std::vector<int64_t> bounds(size_ + 1);
    std::vector<const void*> rows;
    for (int r = 0; r <= size_; ++r) bounds[r] = r * bytes;
    for (int r = 0; r < size_; ++r)
      rows.push_back(r == rank_ ? bytes_of(tensor) : bytes_of(scratch) + bounds[r]);
    Requests requests(comm_, begin("all_reduce"));
    requests.keep(tensor);
    requests.keep(scratch);
    gather_slices(requests, bytes_of(scratch), bounds, bytes_of(tensor));
    requests.wait();
    reduce_rows(tensor.data_ptr(), rows, tensor.numel(), tensor.scalar_type(), op);
    pool_->give_back(std::move(scratch));
  }

  void all_reduce_by_slices(at::Tensor& tensor, ReduceOp op) {
    const int64_t item = static_cast<int64_t>(tensor.element_size());
    std::vector<int64_t> bounds(size_ + 1);  // Bytes; whole elements.
    for (int r = 0; r <= size_; ++r) bounds[r] = tensor.numel() * r / size_ * item;
    const int64_t own_bytes = bounds[rank_ + 1] - bounds[rank_];
    char* data = bytes_of(tensor);
    at::Tensor scratch = pool_->take(own_bytes * (size_ - 1));
    Requests slices(comm_, begin("all_reduce"));
    slices.keep(tensor);
    slices.keep(scratch);
    std::vector<const void*> rows;
    char* arrival = bytes_of(scratch);
    for (int from = 0; from < size_; ++from) {
      rows.push_back(from == rank_ ? data + bounds[rank_] : arrival);
      if (from == rank_) continue;
      slices.receive(arrival, own_bytes, from);
      arrival += own_bytes;
    }
    for (int step = 1; step < size_; ++step) {
      const int to = (rank_ + step) % size_;
      slices.send(data + bounds[to], bounds[to + 1] - bounds[to], to);
    }
    slices.wait();
    reduce_rows(data + bounds[rank_], rows, own_bytes / item, tensor.scalar_type(), op);
    pool_->give_back(std::move(scratch));
    Requests gathered(comm_, begin("all_reduce"));
    gathered.keep(tensor);
    gather_slices(gathered, data, bounds, data + bounds[rank_]);
    gathered.wait();
  }

  MPI_Comm comm_;
  std::string axis_;
  int rank_ = 0, size_ = 1;
  int64_t sequence_ = 0;
  std::shared_ptr<ScratchPool> pool_;
};

}  // namespace

std::shared_ptr<Communicator> mpi_communicator(MPI_Comm comm, std::string axis) {
  return std::make_shared<MpiCommunicator>(comm, std::move(axis));
}

}  // namespace cohort::distributed
