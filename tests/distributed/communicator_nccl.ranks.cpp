// The NCCL communicator over a stand-in for NCCL on host memory (tests/distributed/fake_nccl.h):
// what is ours is executed, NCCL and CUDA are not.
#include "distributed/communicator_nccl.h"

#include "core/base/error.h"
#include "distributed/launch.h"
#include "distributed/mesh.h"
#include "tests/catch.h"
#include "tests/distributed/fake_nccl.h"

using namespace cohort::distributed;
using cohort::tests::FakeNccl;

namespace {

const at::ScalarType kTypes[] = {at::kFloat, at::kDouble, at::kBFloat16, at::kLong};
#define NCCL_RANKS "[distributed][nccl][ranks2][ranks4]"

/// Small whole numbers: their sums are exact in every dtype and order.
at::Tensor values(int rank, int64_t n, at::ScalarType type, int64_t salt = 0) {
  return ((at::arange(n, at::kLong) * 7 + rank * 5 + salt * 3).remainder(13) - 6).to(type);
}

at::Tensor sum(int ranks, int64_t n, at::ScalarType type) {
  at::Tensor total = at::zeros({n}, at::kLong);
  for (int r = 0; r < ranks; ++r) total += values(r, n, at::kLong);
  return total.to(type);
}

/// A world of NCCL over the stand-in. `failures` gets what the watchdog would have ended with.
struct World {
  FakeNccl fake;
  std::vector<std::string> failures;
  std::atomic<int> told{0};
  std::shared_ptr<NcclWatchdog> watchdog;
  std::shared_ptr<Communicator> axis;

  explicit World(double grace_s = 60) {
    NcclWatchdog::Options options;
    options.look_every_s = 0.005;
    options.grace_s = grace_s;
    options.unheard = [this](const std::string& message) {
      failures.push_back(message);
      ++told;
    };
    watchdog = std::make_shared<NcclWatchdog>(fake.calls(), options);
    axis = open("ep");
  }
  ~World() {
    axis.reset();
    watchdog.reset();
  }
  std::shared_ptr<Communicator> open(const char* name) {
    MPI_Comm comm;
    MPI_Comm_dup(MPI_COMM_WORLD, &comm);
    return nccl_communicator(comm, name, watchdog);
  }
};

/// As long as it lives, collectives may take so many seconds.
struct TimeLimit {
  double before = collective_timeout();
  explicit TimeLimit(double seconds) { set_collective_timeout(seconds); }
  ~TimeLimit() { set_collective_timeout(before); }
};

template <class Body>
std::string error_of(const Body& body) {
  try {
    body();
  } catch (const cohort::Error& error) {
    return error.what();
  }
  return "";
}

bool holds(const std::string& text, const std::string& part) {
  CAPTURE(text, part);
  return text.find(part) != std::string::npos;
}

void check_collectives(Communicator& axis) {
  const int rank = axis.rank(), ranks = axis.size();
  for (const at::ScalarType type : kTypes) {
    for (const int64_t n : {1, 7, 3001}) {
      CAPTURE(c10::toString(type), n);
      at::Tensor tensor = values(rank, n, type);
      axis.all_reduce(tensor);
      CHECK(at::equal(tensor, sum(ranks, n, type)));

      at::Tensor most = values(0, n, type), least = most;
      for (int r = 1; r < ranks; ++r) {
        most = at::maximum(most, values(r, n, type));
        least = at::minimum(least, values(r, n, type));
      }
      tensor = values(rank, n, type);
      axis.all_reduce(tensor, ReduceOp::kMax);
      CHECK(at::equal(tensor, most));
      tensor = values(rank, n, type);
      axis.all_reduce(tensor, ReduceOp::kMin);
      CHECK(at::equal(tensor, least));

      for (int root = 0; root < ranks; ++root) {
        tensor = values(rank, n, type);
        axis.broadcast(tensor, root);
        CHECK(at::equal(tensor, values(root, n, type)));
      }

      std::vector<at::Tensor> all;
      for (int r = 0; r < ranks; ++r) all.push_back(values(r, n, type));
      at::Tensor out = at::zeros({n * ranks}, type);
      axis.all_gather(out, all[rank]);
      CHECK(at::equal(out, at::cat(all)));

      at::Tensor slice = at::zeros({n}, type);
      axis.reduce_scatter_async(slice, values(rank, n * ranks, type))->wait();
      CHECK(at::equal(slice, sum(ranks, n * ranks, type).narrow(0, n * rank, n)));
    }
  }
}

void check_all_to_all(Communicator& axis) {
  const int rank = axis.rank(), ranks = axis.size();
  const auto num_rows = [](int a, int b, int round) -> int64_t {
    if (round == 0) return 0;
    if (round == 1) return (a * 7 + b * 3) % 4;
    return a == 0 ? 0 : 50 * (a + b);
  };
  for (int round = 0; round < 3; ++round) {
    for (const at::ScalarType type : kTypes) {
      std::vector<int64_t> send, receive, expected_counts(ranks);
      std::vector<at::Tensor> outgoing, expected;
      for (int r = 0; r < ranks; ++r) {
        send.push_back(num_rows(rank, r, round));
        receive.push_back(num_rows(r, rank, round));
        outgoing.push_back(values(rank, send[r] * 6, type, r).view({-1, 2, 3}));
        expected.push_back(values(r, receive[r] * 6, type, rank).view({-1, 2, 3}));
      }
      axis.all_to_all_counts(send.data(), expected_counts.data(), 1);
      CHECK(expected_counts == receive);
      const at::Tensor in = at::cat(outgoing).contiguous(), wanted = at::cat(expected);
      at::Tensor out = at::full_like(wanted, 99);
      axis.all_to_all_v(out, receive, in, send);
      CAPTURE(round, c10::toString(type));
      CHECK(at::equal(out, wanted));
    }
  }
}

}  // namespace

TEST_CASE("Collectives of NCCL give what the ranks' inputs say", NCCL_RANKS) {
  World world;
  check_collectives(*world.axis);
  check_all_to_all(*world.axis);
  CHECK(world.axis->all_gather_text("rank")[1] == "rank");
  world.axis->barrier();
  CHECK(world.fake.streams == 1);
  CHECK(world.failures.empty());
}

TEST_CASE("Calls of NCCL that return before they are through are waited for", NCCL_RANKS) {
  World world;
  world.fake.slow_calls = 3;
  at::Tensor tensor = values(world.axis->rank(), 100, at::kFloat);
  world.axis->all_reduce(tensor);
  CHECK(at::equal(tensor, sum(world.axis->size(), 100, at::kFloat)));
  check_all_to_all(*world.axis);
  world.axis->barrier();
}

TEST_CASE("All sends and receives of an exchange are one group", NCCL_RANKS) {
  World world;
  const int ranks = world.axis->size();
  const std::vector<int64_t> two(ranks, 2);
  at::Tensor out = at::zeros({2 * ranks, 3});
  world.axis->all_to_all_v(out, two, at::ones({2 * ranks, 3}), two);
  CHECK(world.fake.collectives == 1);
  CHECK(world.fake.largest_group == 2 * (ranks - 1));  // Own rows are copied.
  world.axis->barrier();
}

TEST_CASE("Several reduce-scatters are under way at once, and a dropped one is no harm",
          NCCL_RANKS) {
  World world;
  const int rank = world.axis->rank(), ranks = world.axis->size();
  std::vector<at::Tensor> outs;
  std::vector<std::unique_ptr<Work>> works;
  for (const at::ScalarType type : kTypes) {
    outs.push_back(at::zeros({50}, type));
    works.push_back(world.axis->reduce_scatter_async(outs.back(), values(rank, 50 * ranks, type)));
  }
  works[0].reset();  // The memory must stay until the operation is done.
  while (!works[3]->test()) usleep(10);
  for (size_t i = 1; i < works.size(); ++i) works[i]->wait();
  for (size_t i = 0; i < outs.size(); ++i)
    CHECK(at::equal(outs[i], sum(ranks, 50 * ranks, kTypes[i]).narrow(0, 50 * rank, 50)));
  world.axis->barrier();
}

TEST_CASE("Sums of bf16 are taken in fp32", NCCL_RANKS) {
  World world;
  // 256 + 1 is 256 in bf16: added one after another the ones would be lost.
  const int ranks = world.axis->size();
  at::Tensor tensor = at::full({3}, world.axis->rank() == 0 ? 256.0 : 1.0, at::kBFloat16);
  world.axis->all_reduce(tensor);
  const at::Tensor expected = at::full({3}, 256.0 + ranks - 1, at::kFloat).to(at::kBFloat16);
  CHECK(at::equal(tensor, expected));
}

TEST_CASE("Tensors in host memory go over MPI", NCCL_RANKS) {
  World world;
  world.fake.everything_on_device = false;
  check_collectives(*world.axis);
  check_all_to_all(*world.axis);
  CHECK(world.fake.collectives == 0);
}

TEST_CASE("What NCCL cannot take is refused with the operation", NCCL_RANKS) {
  World world;
  at::Tensor half = at::zeros({4}, at::kHalf);
  CHECK(error_of([&] { world.axis->all_reduce(half); }) ==
        "all_reduce takes fp32, fp64, bf16 or int64, not Half");
  at::Tensor strided = at::zeros({4, 4}).t();
  CHECK(holds(error_of([&] { world.axis->broadcast(strided, 0); }), "contiguous"));
  at::Tensor wrong = at::zeros({5}), part = at::zeros({3});
  CHECK(holds(error_of([&] { world.axis->all_gather(wrong, part); }), "all_gather of 3"));
  world.axis->barrier();
}

TEST_CASE("A mesh has a communicator of NCCL on each axis of several ranks", NCCL_RANKS) {
  FakeNccl fake;
  const auto watchdog = std::make_shared<NcclWatchdog>(fake.calls());
  {
    const Mesh mesh = make_mesh({0, 2, 1}, watchdog);
    CHECK(fake.streams == (world_size() > 2 ? 6 : 4));
    check_collectives(*mesh.ep);
    check_all_to_all(*mesh.ep);
    check_collectives(*mesh.edp);
    check_collectives(*mesh.dp_gradients);
  }
  CHECK(fake.streams == 0);
  CHECK(fake.destroyed == (world_size() > 2 ? 6 : 4));
  CHECK(fake.aborts == 0);
}

TEST_CASE("A collective that a rank does not join is named, and every communicator is aborted",
          NCCL_RANKS) {
  World world;
  const auto other = world.open("edp");
  at::Tensor tensor = at::ones({4});
  other->all_reduce(tensor);
  other->barrier();
  world.axis->barrier();
  if (world.axis->rank() == 0) {
    const TimeLimit limit(0.3);
    const std::string message = error_of([&] { other->all_reduce(tensor); });
    CHECK(message ==
          "all_reduce number 2 on axis edp has taken its rank 0 more than 0.3 s (run.timeout_s)");
    // The other communicator is of no use either, and says the same.
    CHECK(error_of([&] { world.axis->all_reduce(tensor); }) == message);
    CHECK(error_of([&] { world.axis->barrier(); }) == message);
    for (int i = 0; i < 2000 && world.fake.aborts < 2; ++i) usleep(1000);
    CHECK(world.fake.aborts == 2);
    CHECK(world.fake.destroyed == 0);
  } else {
    world.fake.remote_error = FakeNccl::kRemoteError;  // As NCCL tells the others.
    const std::string message = error_of([&] {
      for (;; usleep(1000)) world.watchdog->check();
    });
    CHECK(holds(message, " failed on its rank "));
    CHECK(holds(message, ": remote process exited"));
  }
  MPI_Barrier(MPI_COMM_WORLD);
}

TEST_CASE("An error that NCCL reports later surfaces in the next operation", NCCL_RANKS) {
  World world;
  at::Tensor tensor = at::ones({4});
  world.axis->all_reduce(tensor);
  world.axis->barrier();
  MPI_Barrier(MPI_COMM_WORLD);
  world.fake.remote_error = FakeNccl::kRemoteError;
  std::string message;
  for (int i = 0; i < 2000 && message.empty(); ++i, usleep(1000))
    message = error_of([&] { world.watchdog->check(); });
  CHECK(message == "all_reduce number 1 on axis ep failed on its rank " +
                       std::to_string(world.axis->rank()) + ": remote process exited");
  CHECK(error_of([&] { world.axis->all_reduce(tensor); }) == message);
  MPI_Barrier(MPI_COMM_WORLD);
}

TEST_CASE("A failure that nobody asks after ends the job", NCCL_RANKS) {
  World world(/*grace_s=*/0.05);
  world.fake.remote_error = FakeNccl::kRemoteError;
  for (int i = 0; i < 20000 && world.told == 0; ++i) usleep(1000);
  world.axis.reset();
  world.watchdog.reset();  // Joins the thread that writes there.
  REQUIRE(world.failures.size() == 1);
  CHECK(holds(world.failures[0], "axis ep failed on its rank"));
  CHECK(world.fake.aborts == 1);
  MPI_Barrier(MPI_COMM_WORLD);
}

TEST_CASE("A call that NCCL refuses is named with its words", NCCL_RANKS) {
  World world;
  world.fake.refuse_next = FakeNccl::kInvalidUsage;
  at::Tensor tensor = at::ones({4});
  CHECK(holds(error_of([&] { world.axis->all_reduce(tensor); }),
              "all_reduce number 1 on axis ep failed on its rank "));
  CHECK(holds(error_of([&] { world.axis->barrier(); }), ": NCCL code 5"));
  MPI_Barrier(MPI_COMM_WORLD);
}

TEST_CASE("A call that does not get through is named when its time is up", NCCL_RANKS) {
  World world;
  world.axis->barrier();
  world.fake.never_ready = true;
  world.fake.slow_calls = 1;
  const TimeLimit limit(0.2);
  at::Tensor tensor = at::ones({4});
  CHECK(
      holds(error_of([&] { world.axis->broadcast(tensor, 0); }), "broadcast number 1 on axis ep"));
  MPI_Barrier(MPI_COMM_WORLD);
}

TEST_CASE("A broken CUDA runtime is named with the operation", NCCL_RANKS) {
  World world;
  at::Tensor tensor = at::ones({4});
  world.fake.broken_events = true;
  const std::string message = error_of([&] {
    world.axis->all_reduce(tensor);
    world.axis->barrier();
  });
  CHECK(holds(message, "all_reduce number 1 on axis ep failed on its rank "));
  CHECK(holds(message, ": CUDA code 700"));
  MPI_Barrier(MPI_COMM_WORLD);
}
