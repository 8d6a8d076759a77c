// A stand-in for NCCL and CUDA's streams and events: collectives over MPI on host memory, run by a
// thread a stream. The computing stream (null) is the calling thread itself: waiting on it for an
// event waits, and nothing else does. What must hold of the real ones it refuses or punishes: a
// collective on the computing stream, a send outside a group (waits for its receive), results read
// before they were waited for (operations start late), a used communicator after its abort.
#pragma once
#include <mpi.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <mutex>
#include <thread>

#include "distributed/launch.h"
#include "distributed/nccl_calls.h"
#include "distributed/rank_sums.h"

namespace cohort::tests {

class FakeNccl {
 public:
  static constexpr int kInvalidArgument = 4, kInvalidUsage = 5, kRemoteError = 6, kCudaBroken = 700;

  std::atomic<bool> everything_on_device{true};
  std::atomic<int> slow_calls{0};    ///< Each call is in progress for so many questions.
  std::atomic<int> remote_error{0};  ///< What every communicator then reports.
  std::atomic<bool> never_ready{false};
  std::atomic<int> refuse_next{0};  ///< Code of the next collective.
  std::atomic<bool> broken_events{false};
  std::atomic<int> aborts{0}, destroyed{0}, largest_group{0}, collectives{0}, streams{0};

  distributed::NcclCalls calls() {
    distributed::NcclCalls made;
    add_communicators(made);
    add_collectives(made);
    add_streams(made);
    made.on_device = [this](const at::Tensor&) { return everything_on_device.load(); };
    return made;
  }

 private:
  struct Comm {
    MPI_Comm mpi;
    int rank, size, tag = 0;
    std::atomic<bool> aborted{false};
    std::atomic<int> busy{0};
  };
  struct Stream {
    std::mutex mutex;
    std::condition_variable wake;
    std::deque<std::function<void()>> todo;
    bool stopping = false;
    std::thread thread;

    Stream() : thread([this] { run(); }) {}
    void push(std::function<void()> task) {
      const std::lock_guard lock(mutex);
      todo.push_back(std::move(task));
      wake.notify_one();
    }
    void run() {
      for (;;) {
        std::unique_lock lock(mutex);
        wake.wait(lock, [&] { return stopping || !todo.empty(); });
        if (todo.empty()) return;
        const auto task = std::move(todo.front());
        todo.pop_front();
        lock.unlock();
        task();
      }
    }
  };
  using Flag = std::shared_ptr<std::atomic<bool>>;
  struct Event {
    Flag reached = std::make_shared<std::atomic<bool>>(true);  ///< Not recorded: as CUDA's.
  };
  struct Message {
    const void* send;  ///< Or null.
    void* receive;
    size_t bytes;
    int peer;
  };
  struct Group {
    int depth = 0;
    std::vector<Message> messages;
    Comm* comm = nullptr;
    Stream* stream = nullptr;
  };

  static Comm* of(void* comm) { return static_cast<Comm*>(comm); }
  static size_t bytes(size_t n, distributed::NcclType type) {
    return n * (type == distributed::NcclType::kBFloat16  ? 2
                : type == distributed::NcclType::kFloat32 ? 4
                                                          : 8);
  }
  static at::ScalarType dtype(distributed::NcclType type) {
    switch (type) {
      case distributed::NcclType::kInt64:
        return at::kLong;
      case distributed::NcclType::kFloat32:
        return at::kFloat;
      case distributed::NcclType::kFloat64:
        return at::kDouble;
      default:
        return at::kBFloat16;
    }
  }
  static distributed::ReduceOp reduce_op(distributed::NcclOp op) {
    return op == distributed::NcclOp::kSum   ? distributed::ReduceOp::kSum
           : op == distributed::NcclOp::kMax ? distributed::ReduceOp::kMax
                                             : distributed::ReduceOp::kMin;
  }
  static Group& group() {
    thread_local Group own;
    return own;
  }

  /// The code that a call returns, after which the communicator is busy for a while.
  int answer(Comm* comm) {
    if (slow_calls == 0) return 0;
    comm->busy = slow_calls.load();
    return distributed::NcclCalls::kInProgress;
  }

  /// Messages between ranks, posted at once; given up on when the communicator is aborted.
  static void exchange(Comm* comm, int tag, const std::vector<Message>& messages) {
    std::vector<MPI_Request> requests;
    for (const Message& m : messages) {
      MPI_Request request;
      if (m.send)
        MPI_Issend(m.send, m.bytes, MPI_BYTE, m.peer, tag, comm->mpi, &request);
      else
        MPI_Irecv(m.receive, m.bytes, MPI_BYTE, m.peer, tag, comm->mpi, &request);
      requests.push_back(request);
    }
    for (;;) {
      int done = 0;
      MPI_Testall(static_cast<int>(requests.size()), requests.data(), &done, MPI_STATUSES_IGNORE);
      if (done) return;
      if (comm->aborted) break;
      usleep(20);
    }
    for (MPI_Request& request : requests)
      if (request != MPI_REQUEST_NULL) MPI_Cancel(&request);
  }

  /// Queues `work`, which gets a fresh tag; it starts late.
  int enqueue(void* stream, Comm* comm, std::function<void(int tag)> work) {
    if (!stream || comm->aborted) return kInvalidArgument;
    if (group().depth > 0) return kInvalidUsage;
    if (const int code = refuse_next.exchange(0)) return code;
    ++collectives;
    const int tag = comm->tag++ & 0x7fff;
    static_cast<Stream*>(stream)->push([work = std::move(work), tag] {
      usleep(300);
      work(tag);
    });
    return answer(comm);
  }

  static std::vector<char> gather(Comm* comm, int tag, const void* own, size_t n) {
    std::vector<char> all(n * comm->size);
    std::vector<Message> messages;
    for (int peer = 0; peer < comm->size; ++peer) {
      if (peer == comm->rank) continue;
      messages.push_back({nullptr, all.data() + n * peer, n, peer});
      messages.push_back({own, nullptr, n, peer});
    }
    std::memcpy(all.data() + n * comm->rank, own, n);
    exchange(comm, tag, messages);
    return all;
  }

  static void reduce(const std::vector<char>& all,
                     Comm* comm,
                     size_t n,
                     distributed::NcclType type,
                     distributed::NcclOp op,
                     void* out) {
    std::vector<const void*> rows;
    for (int r = 0; r < comm->size; ++r) rows.push_back(all.data() + bytes(n, type) * r);
    distributed::reduce_rows(out, rows, n, dtype(type), reduce_op(op));
  }

  void add_communicators(distributed::NcclCalls& made) {
    made.get_id = [this](distributed::NcclId* id) {
      const int name = distributed::world_rank() * 1000 + ids_++;
      std::memcpy(id->bytes, &name, sizeof name);
      return 0;
    };
    // Ranks with the same id form a communicator.
    made.init = [this](void** comm, int size, distributed::NcclId id, int rank) {
      int name = 0;
      std::memcpy(&name, id.bytes, sizeof name);
      auto* opened = new Comm;
      MPI_Comm_split(MPI_COMM_WORLD, name, rank, &opened->mpi);
      MPI_Comm_rank(opened->mpi, &opened->rank);
      MPI_Comm_size(opened->mpi, &opened->size);
      if (opened->rank != rank || opened->size != size) return kInvalidArgument;
      *comm = opened;
      return answer(opened);
    };
    made.async_error = [this](void* comm, int* state) {
      *state = remote_error;
      if (*state == 0 && (never_ready || of(comm)->busy > 0)) {
        --of(comm)->busy;
        *state = distributed::NcclCalls::kInProgress;
      }
      return 0;
    };
    made.finalize = [this](void* comm) { return answer(of(comm)); };
    made.destroy = [this](void* comm) {
      ++destroyed;
      MPI_Comm_free(&of(comm)->mpi);
      delete of(comm);
      return 0;
    };
    made.abort = [this](void* comm) {
      of(comm)->aborted = true;  // Its thread may still look at it: kept.
      ++aborts;
      return 0;
    };
    made.nccl_words = [](int code, void*) {
      return code == kRemoteError ? "remote process exited" : "NCCL code " + std::to_string(code);
    };
  }

  void add_collectives(distributed::NcclCalls& made) {
    using distributed::NcclOp, distributed::NcclType;
    made.all_reduce = [this](const void* in,
                             void* out,
                             size_t n,
                             NcclType type,
                             NcclOp op,
                             void* comm,
                             void* stream) {
      return enqueue(stream, of(comm), [=, c = of(comm)](int tag) {
        const auto all = gather(c, tag, in, bytes(n, type));
        if (!c->aborted) reduce(all, c, n, type, op, out);
      });
    };
    made.broadcast = [this](
                         void* data, size_t n, NcclType type, int root, void* comm, void* stream) {
      return enqueue(stream, of(comm), [=, c = of(comm)](int tag) {
        std::vector<Message> messages;
        for (int peer = 0; peer < c->size; ++peer)
          if (c->rank == root && peer != root)
            messages.push_back({data, nullptr, bytes(n, type), peer});
        if (c->rank != root) messages.push_back({nullptr, data, bytes(n, type), root});
        exchange(c, tag, messages);
      });
    };
    made.all_gather =
        [this](const void* in, void* out, size_t n, NcclType type, void* comm, void* stream) {
          return enqueue(stream, of(comm), [=, c = of(comm)](int tag) {
            const auto all = gather(c, tag, in, bytes(n, type));
            if (!c->aborted) std::memcpy(out, all.data(), all.size());
          });
        };
    made.reduce_scatter = [this](const void* in,
                                 void* out,
                                 size_t n,
                                 NcclType type,
                                 NcclOp op,
                                 void* comm,
                                 void* stream) {
      return enqueue(stream, of(comm), [=, c = of(comm)](int tag) {
        const size_t slice = bytes(n, type);
        std::vector<char> all(slice * c->size);
        std::vector<Message> messages;
        for (int peer = 0; peer < c->size; ++peer) {
          const char* part = static_cast<const char*>(in) + slice * peer;
          if (peer == c->rank) {
            std::memcpy(all.data() + slice * peer, part, slice);
            continue;
          }
          messages.push_back({nullptr, all.data() + slice * peer, slice, peer});
          messages.push_back({part, nullptr, slice, peer});
        }
        exchange(c, tag, messages);
        if (!c->aborted) reduce(all, c, n, type, op, out);
      });
    };
    made.send = [this](
                    const void* data, size_t n, NcclType type, int peer, void* comm, void* stream) {
      return message({data, nullptr, bytes(n, type), peer}, of(comm), stream);
    };
    made.receive = [this](void* data, size_t n, NcclType type, int peer, void* comm, void* stream) {
      return message({nullptr, data, bytes(n, type), peer}, of(comm), stream);
    };
    made.group_start = [] {
      ++group().depth;
      return 0;
    };
    made.group_end = [this] {
      Group& own = group();
      if (own.depth != 1) return kInvalidUsage;
      own.depth = 0;
      const auto messages = std::exchange(own.messages, {});
      largest_group = std::max<int>(largest_group, messages.size());
      if (messages.empty()) return 0;
      Comm* comm = own.comm;
      return enqueue(own.stream, comm, [comm, messages](int) { exchange(comm, 0x7fff, messages); });
    };
  }

  int message(Message m, Comm* comm, void* stream) {
    if (!stream || comm->aborted || m.bytes == 0) return kInvalidArgument;
    Group& own = group();
    if (own.depth == 0)
      return enqueue(stream, comm, [comm, m](int) { exchange(comm, 0x7fff, {m}); });
    own.comm = comm;
    own.stream = static_cast<Stream*>(stream);
    own.messages.push_back(m);
    return 0;
  }

  void add_streams(distributed::NcclCalls& made) {
    made.enter_thread = [] { return 0; };
    made.stream_create = [this](void** stream) {
      *stream = new Stream;
      ++streams;
      return 0;
    };
    made.stream_destroy = [this](void* stream) {
      auto* ended = static_cast<Stream*>(stream);
      {
        const std::lock_guard lock(ended->mutex);
        ended->stopping = true;
        ended->wake.notify_one();
      }
      ended->thread.join();
      delete ended;
      --streams;
      return 0;
    };
    made.current_stream = []() -> void* { return nullptr; };
    made.event_create = [](void** event) {
      *event = new Event;
      return 0;
    };
    made.event_destroy = [](void* event) {
      delete static_cast<Event*>(event);
      return 0;
    };
    made.event_record = [](void* event, void* stream) {
      auto reached = std::make_shared<std::atomic<bool>>(stream == nullptr);
      std::atomic_store(&static_cast<Event*>(event)->reached, reached);
      if (stream) static_cast<Stream*>(stream)->push([reached] { *reached = true; });
      return 0;
    };
    made.stream_wait = [](void* stream, void* event) {
      const auto wait = [reached = std::atomic_load(&static_cast<Event*>(event)->reached)] {
        while (!*reached) usleep(20);
      };
      if (stream)
        static_cast<Stream*>(stream)->push(wait);
      else
        wait();
      return 0;
    };
    made.event_done = [this](void* event, bool* done) {
      *done = *std::atomic_load(&static_cast<Event*>(event)->reached);
      return broken_events ? kCudaBroken : 0;
    };
    made.cuda_words = [](int code) { return "CUDA code " + std::to_string(code); };
  }

  int ids_ = 0;
};

}  // namespace cohort::tests
