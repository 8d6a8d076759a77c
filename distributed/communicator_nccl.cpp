#include "distributed/communicator_nccl.h"

#include <unistd.h>

#include <chrono>
#include <cstring>
#include <exception>

#include "core/base/error.h"
#include "distributed/communicator_mpi.h"

namespace cohort::distributed {

NcclType nccl_type(at::ScalarType dtype, const char* operation) {
  switch (dtype) {
    case at::kLong:
      return NcclType::kInt64;
    case at::kFloat:
      return NcclType::kFloat32;
    case at::kDouble:
      return NcclType::kFloat64;
    case at::kBFloat16:
      return NcclType::kBFloat16;
    default:
      throw Error(fmt::format(
          "{} takes fp32, fp64, bf16 or int64, not {}", operation, c10::toString(dtype)));
  }
}

NcclOp nccl_op(ReduceOp op) {
  return op == ReduceOp::kSum ? NcclOp::kSum : op == ReduceOp::kMax ? NcclOp::kMax : NcclOp::kMin;
}

namespace {

using Clock = std::chrono::steady_clock;

/// Events are used again: making one costs more than recording it. Any thread may give one back.
class EventPool : public std::enable_shared_from_this<EventPool> {
 public:
  explicit EventPool(const NcclCalls& calls) : calls_(calls) {}
  ~EventPool() {
    for (void* event : free_) calls_.event_destroy(event);
  }
  /// Null when the runtime makes none; `code` then says why.
  std::shared_ptr<void> take(int& code) {
    void* event = nullptr;
    code = NcclCalls::kSuccess;
    {
      const std::lock_guard lock(mutex_);
      if (!free_.empty()) {
        event = free_.back();
        free_.pop_back();
      }
    }
    if (!event) code = calls_.event_create(&event);
    if (code != NcclCalls::kSuccess) return nullptr;
    return {event, [pool = shared_from_this()](void* used) {
              const std::lock_guard lock(pool->mutex_);
              pool->free_.push_back(used);
            }};
  }

 private:
  const NcclCalls calls_;
  std::mutex mutex_;
  std::vector<void*> free_;
};

using Event = std::shared_ptr<void>;

/// Keeps the tensors until the computing stream is known to wait for the operation: memory that is
/// freed then is used again only behind it.
class NcclWork : public Work {
 public:
  NcclWork(std::shared_ptr<NcclWatchdog> watchdog,
           Event done,
           std::vector<at::Tensor> kept,
           std::function<void()> finish)
      : watchdog_(std::move(watchdog)),
        done_(std::move(done)),
        kept_(std::move(kept)),
        finish_(std::move(finish)) {}
  ~NcclWork() override {
    if (done_) watchdog_->calls().stream_wait(watchdog_->calls().current_stream(), done_.get());
  }

  bool test() override {
    if (!done_) return true;
    watchdog_->check();
    bool arrived = false;
    const int code = watchdog_->calls().event_done(done_.get(), &arrived);
    if (code != NcclCalls::kSuccess) {
      watchdog_->fail("reduce_scatter failed: " + watchdog_->calls().cuda_words(code));
      watchdog_->check();
    }
    if (arrived) wait();
    return arrived;
  }

  void wait() override {
    if (!done_) return;
    const NcclCalls& calls = watchdog_->calls();
    const int code = calls.stream_wait(calls.current_stream(), done_.get());
    if (code != NcclCalls::kSuccess)
      watchdog_->fail("reduce_scatter failed: " + calls.cuda_words(code));
    watchdog_->check();
    done_.reset();
    if (finish_) finish_();
    kept_.clear();
  }

 private:
  std::shared_ptr<NcclWatchdog> watchdog_;
  Event done_;
  std::vector<at::Tensor> kept_;
  std::function<void()> finish_;
};

class NcclCommunicator : public Communicator {
 public:
  NcclCommunicator(MPI_Comm comm, std::string axis, std::shared_ptr<NcclWatchdog> watchdog)
      : host_(mpi_communicator(comm, std::move(axis))),
        watchdog_(std::move(watchdog)),
        calls_(watchdog_->calls()),
        events_(std::make_shared<EventPool>(calls_)),
        link_(std::make_shared<NcclLink>()) {
    const Operation operation = begin("connect");
    const NcclId id = exchange_id(operation);
    check_cuda(calls_.enter_thread(), operation);
    check_cuda(calls_.stream_create(&stream_), operation);
    watchdog_->enlist(link_);
    int code;
    {
      const std::lock_guard lock(link_->mutex);
      link_->last = operation;
      code = calls_.init(&link_->comm, size(), id, rank());
    }
    settle(code, operation);
  }

  ~NcclCommunicator() override {
    // Ending in order is collective: one rank alone with an exception must not begin it. A failed
    // communicator is the watchdog's, and a stream with a stuck operation cannot be destroyed.
    try {
      if (std::uncaught_exceptions() == 0) {
        watchdog_->drain(link_.get());
        const Operation operation = begin("finalize");
        call(operation, [&] { return calls_.finalize(link_->comm); });
        if (!watchdog_->withdraw(link_)) return;
        calls_.destroy(link_->comm);
        calls_.stream_destroy(stream_);
      } else if (watchdog_->withdraw(link_)) {
        calls_.abort(link_->comm);
      }
    } catch (const Error&) {
      watchdog_->withdraw(link_);  // The failure is reported by whatever is called next.
    }
  }

  int rank() const override { return host_->rank(); }
  int size() const override { return host_->size(); }
  const std::string& axis() const override { return host_->axis(); }

  void barrier() override {
    watchdog_->drain(link_.get());
    host_->barrier();
  }

  void all_reduce(at::Tensor& tensor, ReduceOp op) override {
    if (on_host(tensor)) return host_->all_reduce(tensor, op);
    check_tensor(tensor, "all_reduce");
    const at::NoGradGuard no_grad;
    // NCCL would round a sum of bf16 after each rank.
    const bool widen = tensor.scalar_type() == at::kBFloat16 && op == ReduceOp::kSum;
    at::Tensor sums = widen ? tensor.to(at::kFloat) : tensor;
    const NcclType type = nccl_type(sums.scalar_type(), "all_reduce");
    run("all_reduce", [&] {
      return calls_.all_reduce(
          sums.data_ptr(), sums.data_ptr(), sums.numel(), type, nccl_op(op), link_->comm, stream_);
    });
    if (widen) tensor.copy_(sums);
  }

  void broadcast(at::Tensor& tensor, int root) override {
    if (on_host(tensor)) return host_->broadcast(tensor, root);
    check_tensor(tensor, "broadcast");
    COHORT_CHECK(root >= 0 && root < size(),
                 "broadcast from rank {} on axis {} of {}",
                 root,
                 axis(),
                 size());
    const NcclType type = nccl_type(tensor.scalar_type(), "broadcast");
    run("broadcast", [&] {
      return calls_.broadcast(tensor.data_ptr(), tensor.numel(), type, root, link_->comm, stream_);
    });
  }

  void all_gather(at::Tensor& out, const at::Tensor& in) override {
    if (on_host(out)) return host_->all_gather(out, in);
    check_tensor(out, "all_gather");
    check_tensor(in, "all_gather");
    COHORT_CHECK(out.numel() == in.numel() * size() && out.scalar_type() == in.scalar_type(),
                 "all_gather of {} elements from {} ranks into {}",
                 in.numel(),
                 size(),
                 out.numel());
    const NcclType type = nccl_type(in.scalar_type(), "all_gather");
    run("all_gather", [&] {
      return calls_.all_gather(
          in.data_ptr(), out.data_ptr(), in.numel(), type, link_->comm, stream_);
    });
  }

  std::unique_ptr<Work> reduce_scatter_async(at::Tensor& out, const at::Tensor& in) override {
    if (on_host(out)) return host_->reduce_scatter_async(out, in);
    check_tensor(out, "reduce_scatter");
    check_tensor(in, "reduce_scatter");
    COHORT_CHECK(in.numel() == out.numel() * size() && out.scalar_type() == in.scalar_type(),
                 "reduce_scatter of {} elements over {} ranks into {}",
                 in.numel(),
                 size(),
                 out.numel());
    const at::NoGradGuard no_grad;
    const bool widen = in.scalar_type() == at::kBFloat16;
    const at::Tensor from = widen ? in.to(at::kFloat) : in;
    const at::Tensor to = widen ? at::empty_like(out, at::kFloat) : out;
    const NcclType type = nccl_type(from.scalar_type(), "reduce_scatter");
    Event done = start("reduce_scatter", [&] {
      return calls_.reduce_scatter(
          from.data_ptr(), to.data_ptr(), to.numel(), type, NcclOp::kSum, link_->comm, stream_);
    });
    std::function<void()> finish;
    if (widen) {
      finish = [out, to] {
        const at::NoGradGuard no_grad;
        out.copy_(to);
      };
    }
    return std::make_unique<NcclWork>(
        watchdog_, std::move(done), std::vector{from, to, out}, std::move(finish));
  }

  void all_to_all_counts(const int64_t* send, int64_t* receive, int64_t per_rank) override {
    watchdog_->check();
    host_->all_to_all_counts(send, receive, per_rank);
  }

  void all_to_all_v(at::Tensor& out,
                    const std::vector<int64_t>& receive_rows,
                    const at::Tensor& in,
                    const std::vector<int64_t>& send_rows) override {
    if (on_host(out)) return host_->all_to_all_v(out, receive_rows, in, send_rows);
    check_tensor(out, "all_to_all_v");
    check_tensor(in, "all_to_all_v");
    check_all_to_all_rows(out, receive_rows, in, send_rows, size());
    COHORT_CHECK(send_rows[rank()] == receive_rows[rank()],
                 "all_to_all_v: {} rows from rank {} to itself, but it expects {}",
                 send_rows[rank()],
                 rank(),
                 receive_rows[rank()]);
    const NcclType type = nccl_type(in.scalar_type(), "all_to_all_v");
    const Event done = start("all_to_all_v",
                             [&] { return exchange_rows(out, receive_rows, in, send_rows, type); });
    copy_own_rows(out, receive_rows, in, send_rows);  // On the computing stream, meanwhile.
    finish(done);
  }

  std::vector<std::string> all_gather_text(const std::string& text) override {
    watchdog_->check();
    return host_->all_gather_text(text);
  }

 private:
  Operation begin(const char* name) { return {name, axis(), rank(), sequence_++}; }

  [[noreturn]] void fail(const Operation& operation, const std::string& words) {
    watchdog_->fail(failed_message(operation, words));
    watchdog_->check();  // Throws; the first failure, if there was one before.
    throw Error(failed_message(operation, words));
  }
  void check_cuda(int code, const Operation& operation) {
    if (code != NcclCalls::kSuccess) fail(operation, calls_.cuda_words(code));
  }

  bool on_host(const at::Tensor& tensor) const {
    return tensor.defined() && tensor.is_cpu() && !calls_.on_device(tensor);
  }
  void check_tensor(const at::Tensor& tensor, const char* operation) const {
    COHORT_CHECK(tensor.defined() && calls_.on_device(tensor) && tensor.is_contiguous(),
                 "{} on axis {} takes a contiguous tensor on its rank's GPU",
                 operation,
                 axis());
  }

  NcclId exchange_id(const Operation& operation) {
    // With the code, so that all ranks fail alike when NCCL gives no id.
    at::Tensor record = at::zeros({static_cast<int64_t>(sizeof(NcclId)) + 1}, at::kByte);
    auto* bytes = record.data_ptr<uint8_t>();
    NcclId id{};
    if (rank() == 0) {
      bytes[sizeof(NcclId)] = static_cast<uint8_t>(calls_.get_id(&id));
      std::memcpy(bytes, id.bytes, sizeof(NcclId));
    }
    host_->broadcast(record, 0);
    std::memcpy(id.bytes, bytes, sizeof(NcclId));
    if (const int code = bytes[sizeof(NcclId)]; code != NcclCalls::kSuccess)
      fail(operation, calls_.nccl_words(code, nullptr));
    return id;
  }

  /// Makes a call of NCCL on the link and sees it through.
  template <class NcclCall>
  void call(const Operation& operation, const NcclCall& nccl_call) {
    int code = NcclCalls::kSuccess;
    {
      const std::lock_guard lock(link_->mutex);
      link_->last = operation;
      if (!link_->aborted) code = nccl_call();
    }
    settle(code, operation);
  }

  void settle(int code, const Operation& operation) {
    const auto start = Clock::now();
    while (code == NcclCalls::kInProgress) {
      watchdog_->check();
      {
        const std::lock_guard lock(link_->mutex);
        if (link_->aborted) break;
        int state = NcclCalls::kSuccess;
        code = calls_.async_error(link_->comm, &state);
        if (code == NcclCalls::kSuccess) code = state;
      }
      if (code != NcclCalls::kInProgress) break;
      const double limit = collective_timeout();
      if (limit > 0 && std::chrono::duration<double>(Clock::now() - start).count() > limit)
        watchdog_->fail(late_message(operation, limit));
      usleep(20);
    }
    watchdog_->check();
    if (code != NcclCalls::kSuccess) fail(operation, calls_.nccl_words(code, link_->comm));
  }

  Event record(void* stream, const Operation& operation) {
    int code;
    Event event = events_->take(code);
    check_cuda(code, operation);
    check_cuda(calls_.event_record(event.get(), stream), operation);
    return event;
  }

  /// Starts a collective behind what the computing stream holds; the event tells its end.
  template <class NcclCall>
  Event start(const char* name, const NcclCall& nccl_call) {
    watchdog_->check();
    const Operation operation = begin(name);
    const Event inputs = record(calls_.current_stream(), operation);
    check_cuda(calls_.stream_wait(stream_, inputs.get()), operation);
    const Event began = record(stream_, operation);
    call(operation, nccl_call);
    Event done = record(stream_, operation);
    watchdog_->add(link_.get(), operation, [calls = calls_, began, done] {
      const auto reached = [&](const Event& event) {
        bool yes = false;
        const int code = calls.event_done(event.get(), &yes);
        COHORT_CHECK(code == NcclCalls::kSuccess, "{}", calls.cuda_words(code));
        return yes;
      };
      return reached(done)    ? Progress::kDone
             : reached(began) ? Progress::kRunning
                              : Progress::kQueued;
    });
    return done;
  }

  /// What is computed from here on sees the results.
  void finish(const Event& done) {
    const int code = calls_.stream_wait(calls_.current_stream(), done.get());
    if (code != NcclCalls::kSuccess) watchdog_->fail(calls_.cuda_words(code));
    watchdog_->check();
  }

  template <class NcclCall>
  void run(const char* name, const NcclCall& nccl_call) {
    finish(start(name, nccl_call));
  }

  /// All sends and receives as one group: NCCL runs them at once, so no order of ranks can
  /// deadlock.
  int exchange_rows(const at::Tensor& out,
                    const std::vector<int64_t>& receive_rows,
                    const at::Tensor& in,
                    const std::vector<int64_t>& send_rows,
                    NcclType type) {
    const int64_t row = c10::multiply_integers(in.sizes().slice(1));
    const int64_t row_bytes = row * static_cast<int64_t>(in.element_size());
    const auto* from = static_cast<const char*>(in.data_ptr());
    auto* to = static_cast<char*>(out.data_ptr());
    int worst = calls_.group_start();
    const auto keep = [&](int code) {
      if (worst == NcclCalls::kSuccess || worst == NcclCalls::kInProgress) {
        if (code != NcclCalls::kSuccess) worst = code;
      }
    };
    for (int peer = 0; peer < size(); ++peer) {
      if (peer != rank() && send_rows[peer] * row > 0)
        keep(calls_.send(from, send_rows[peer] * row, type, peer, link_->comm, stream_));
      if (peer != rank() && receive_rows[peer] * row > 0)
        keep(calls_.receive(to, receive_rows[peer] * row, type, peer, link_->comm, stream_));
      from += send_rows[peer] * row_bytes;
      to += receive_rows[peer] * row_bytes;
    }
    keep(calls_.group_end());
    return worst;
  }

  void copy_own_rows(const at::Tensor& out,
                     const std::vector<int64_t>& receive_rows,
                     const at::Tensor& in,
                     const std::vector<int64_t>& send_rows) {
    if (send_rows[rank()] == 0) return;
    int64_t to = 0, from = 0;
    for (int peer = 0; peer < rank(); ++peer) {
      to += receive_rows[peer];
      from += send_rows[peer];
    }
    const at::NoGradGuard no_grad;
    out.narrow(0, to, send_rows[rank()]).copy_(in.narrow(0, from, send_rows[rank()]));
  }

  std::shared_ptr<Communicator> host_;
  std::shared_ptr<NcclWatchdog> watchdog_;
  const NcclCalls& calls_;
  std::shared_ptr<EventPool> events_;
  std::shared_ptr<NcclLink> link_;
  void* stream_ = nullptr;
  int64_t sequence_ = 0;
};

}  // namespace

std::shared_ptr<Communicator> nccl_communicator(MPI_Comm comm,
                                                std::string axis,
                                                std::shared_ptr<NcclWatchdog> watchdog) {
  return std::make_shared<NcclCommunicator>(comm, std::move(axis), std::move(watchdog));
}

}  // namespace cohort::distributed
