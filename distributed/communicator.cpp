#include "distributed/communicator.h"

#include <atomic>
#include <numeric>

#include "core/base/error.h"

namespace cohort::distributed {
namespace {

std::atomic<double> timeout_seconds{600};

class DoneWork : public Work {
 public:
  bool test() override { return true; }
  void wait() override {}
};

void copy_unless_same(at::Tensor& out, const at::Tensor& in, const char* operation) {
  check_contiguous(out, operation);
  check_contiguous(in, operation);
  COHORT_CHECK(out.numel() == in.numel() && out.scalar_type() == in.scalar_type(),
               "{} on one rank: {} elements of {} cannot go into {} of {}",
               operation,
               in.numel(),
               c10::toString(in.scalar_type()),
               out.numel(),
               c10::toString(out.scalar_type()));
  if (out.data_ptr() != in.data_ptr()) out.view({-1}).copy_(in.view({-1}));
}

class LocalCommunicator : public Communicator {
 public:
  explicit LocalCommunicator(std::string axis) : axis_(std::move(axis)) {}
  int rank() const override { return 0; }
  int size() const override { return 1; }
  const std::string& axis() const override { return axis_; }

  void barrier() override {}
  void all_reduce(at::Tensor& tensor, ReduceOp) override { check_contiguous(tensor, "all_reduce"); }
  void broadcast(at::Tensor& tensor, int root) override {
    check_contiguous(tensor, "broadcast");
    COHORT_CHECK(root == 0, "broadcast from rank {} on axis {} of one rank", root, axis_);
  }
  void all_gather(at::Tensor& out, const at::Tensor& in) override {
    copy_unless_same(out, in, "all_gather");
  }
  std::unique_ptr<Work> reduce_scatter_async(at::Tensor& out, const at::Tensor& in) override {
    copy_unless_same(out, in, "reduce_scatter");
    return std::make_unique<DoneWork>();
  }
  void all_to_all_counts(const int64_t* send, int64_t* receive, int64_t per_rank) override {
    std::copy(send, send + per_rank, receive);
  }
  void all_to_all_v(at::Tensor& out,
                    const std::vector<int64_t>& receive_rows,
                    const at::Tensor& in,
                    const std::vector<int64_t>& send_rows) override {
    check_all_to_all_rows(out, receive_rows, in, send_rows, 1);
    copy_unless_same(out, in, "all_to_all_v");
  }
  std::vector<std::string> all_gather_text(const std::string& text) override { return {text}; }

 private:
  std::string axis_;
};

}  // namespace

std::shared_ptr<Communicator> local_communicator(std::string axis) {
  return std::make_shared<LocalCommunicator>(std::move(axis));
}

void set_collective_timeout(double seconds) { timeout_seconds = seconds; }
double collective_timeout() { return timeout_seconds; }

void check_contiguous(const at::Tensor& tensor, const char* operation) {
  COHORT_CHECK(
      tensor.defined() && tensor.is_contiguous(), "{} takes a contiguous tensor", operation);
}

void check_collective_tensor(const at::Tensor& tensor, const char* operation) {
  COHORT_CHECK(tensor.defined() && tensor.is_cpu() && tensor.is_contiguous(),
               "{} takes a contiguous tensor on the CPU",
               operation);
}

void check_all_to_all_rows(const at::Tensor& out,
                           const std::vector<int64_t>& receive_rows,
                           const at::Tensor& in,
                           const std::vector<int64_t>& send_rows,
                           int ranks) {
  check_contiguous(out, "all_to_all_v");
  check_contiguous(in, "all_to_all_v");
  const auto total = [](const std::vector<int64_t>& rows) {
    return std::accumulate(rows.begin(), rows.end(), int64_t{0});
  };
  COHORT_CHECK(in.dim() >= 1 && out.dim() >= 1 && in.scalar_type() == out.scalar_type() &&
                   in.sizes().slice(1) == out.sizes().slice(1),
               "all_to_all_v: rows of {} and of {} differ",
               fmt::join(in.sizes(), "x"),
               fmt::join(out.sizes(), "x"));
  COHORT_CHECK(static_cast<int>(send_rows.size()) == ranks && total(send_rows) == in.size(0),
               "all_to_all_v sends {} rows to {} ranks, but has {} rows and {} ranks",
               total(send_rows),
               send_rows.size(),
               in.size(0),
               ranks);
  COHORT_CHECK(static_cast<int>(receive_rows.size()) == ranks && total(receive_rows) == out.size(0),
               "all_to_all_v receives {} rows from {} ranks, but has room for {} from {}",
               total(receive_rows),
               receive_rows.size(),
               out.size(0),
               ranks);
}

}  // namespace cohort::distributed
