// Every collective against what the ranks' inputs say it must give; inputs are a function of the
// rank, so each rank can compute them all.
#include <unistd.h>

#include "core/base/error.h"
#include "core/base/rng.h"
#include "distributed/communicator_mpi.h"
#include "distributed/launch.h"
#include "distributed/mesh.h"
#include "distributed/mpi_requests.h"
#include "tests/catch.h"

using namespace cohort::distributed;

namespace {

const at::ScalarType kTypes[] = {at::kFloat, at::kDouble, at::kBFloat16, at::kLong};

/// The input of a rank.
at::Tensor values(int rank, int64_t n, at::ScalarType type, uint64_t salt = 0) {
  at::Tensor made = at::empty({n}, at::kDouble);
  double* at = made.data_ptr<double>();
  for (int64_t i = 0; i < n; ++i)
    at[i] = 2000 * (cohort::core::random_uniform(rank, salt, i) - 0.5);
  return made.to(type);
}

std::shared_ptr<Communicator> world() { return make_mesh({}).world; }

at::Tensor sum_in_rank_order(int ranks, int64_t n, at::ScalarType type) {
  const at::ScalarType wide = type == at::kBFloat16 ? at::kFloat : type;
  at::Tensor sum = values(0, n, type).to(wide);
  for (int r = 1; r < ranks; ++r) sum += values(r, n, type).to(wide);
  return sum.to(type);
}

}  // namespace

#define ALL_RANKS "[distributed][communicator][ranks1][ranks2][ranks4]"

TEST_CASE("all_reduce gives the sum in rank order, to the bit", ALL_RANKS) {
  const auto axis = world();
  for (const at::ScalarType type : kTypes) {
    for (const int64_t n : {0, 1, 7, 1000, 100003}) {
      at::Tensor tensor = values(axis->rank(), n, type);
      axis->all_reduce(tensor);
      CAPTURE(c10::toString(type), n);
      CHECK(at::equal(tensor, sum_in_rank_order(axis->size(), n, type)));
    }
  }
}

TEST_CASE("all_reduce gives the maximum and the minimum", ALL_RANKS) {
  const auto axis = world();
  for (const at::ScalarType type : kTypes) {
    for (const int64_t n : {5, 50000}) {
      at::Tensor most = values(0, n, type), least = most.clone();
      for (int r = 1; r < axis->size(); ++r) {
        most = at::maximum(most, values(r, n, type));
        least = at::minimum(least, values(r, n, type));
      }
      at::Tensor tensor = values(axis->rank(), n, type);
      axis->all_reduce(tensor, ReduceOp::kMax);
      CHECK(at::equal(tensor, most));
      tensor = values(axis->rank(), n, type);
      axis->all_reduce(tensor, ReduceOp::kMin);
      CHECK(at::equal(tensor, least));
    }
  }
}

TEST_CASE("broadcast gives every rank the root's values", ALL_RANKS) {
  const auto axis = world();
  for (int root = 0; root < axis->size(); ++root) {
    for (const at::ScalarType type : kTypes) {
      at::Tensor tensor = values(axis->rank(), 12345, type);
      axis->broadcast(tensor, root);
      CHECK(at::equal(tensor, values(root, 12345, type)));
    }
    at::Tensor empty = at::empty({0});
    axis->broadcast(empty, root);
  }
}

TEST_CASE("all_gather puts slices in rank order, in place or not", ALL_RANKS) {
  const auto axis = world();
  for (const at::ScalarType type : kTypes) {
    for (const int64_t n : {0, 3, 70001}) {
      std::vector<at::Tensor> all;
      for (int r = 0; r < axis->size(); ++r) all.push_back(values(r, n, type));
      const at::Tensor expected = at::cat(all);
      at::Tensor out = at::zeros({n * axis->size()}, type);
      axis->all_gather(out, all[axis->rank()]);
      CHECK(at::equal(out, expected));
      out.zero_();
      const at::Tensor own = out.narrow(0, n * axis->rank(), n);
      own.copy_(all[axis->rank()]);
      axis->all_gather(out, own);
      CHECK(at::equal(out, expected));
    }
  }
}

TEST_CASE("reduce_scatter gives each rank its slice of the sum, several at once", ALL_RANKS) {
  const auto axis = world();
  for (const at::ScalarType type : kTypes) {
    std::vector<at::Tensor> outs, ins;
    std::vector<std::unique_ptr<Work>> works;
    const std::vector<int64_t> sizes{100, 0, 1, 40000};
    for (const int64_t n : sizes) {
      ins.push_back(values(axis->rank(), n * axis->size(), type));
      outs.push_back(at::zeros({n}, type));
      works.push_back(axis->reduce_scatter_async(outs.back(), ins.back()));
    }
    while (!works[3]->test()) usleep(10);
    for (size_t i = sizes.size(); i-- > 0;) works[i]->wait();
    for (size_t i = 0; i < sizes.size(); ++i) {
      const at::Tensor sum = sum_in_rank_order(axis->size(), sizes[i] * axis->size(), type);
      CHECK(at::equal(outs[i], sum.narrow(0, sizes[i] * axis->rank(), sizes[i])));
    }
  }
}

TEST_CASE("all_to_all_counts transposes", ALL_RANKS) {
  const auto axis = world();
  const int ranks = axis->size();
  for (const int64_t per_rank : {1, 5}) {
    std::vector<int64_t> send, receive(ranks * per_rank, -1), expected;
    for (int r = 0; r < ranks; ++r) {
      for (int64_t i = 0; i < per_rank; ++i) {
        send.push_back(axis->rank() * 1000 + r * 10 + i);
        expected.push_back(r * 1000 + axis->rank() * 10 + i);
      }
    }
    axis->all_to_all_counts(send.data(), receive.data(), per_rank);
    CHECK(receive == expected);
  }
}

TEST_CASE("all_to_all_v moves rows, none and many", ALL_RANKS) {
  const auto axis = world();
  const int ranks = axis->size(), rank = axis->rank();
  // From rank a to rank b; some pairs exchange nothing, one rank may send nothing at all.
  const auto num_rows = [](int a, int b, int round) -> int64_t {
    if (round == 0) return 0;
    if (round == 1) return (a * 7 + b * 3) % 4;
    return a == 0 ? 0 : 500 * (a + b);
  };
  for (int round = 0; round < 3; ++round) {
    for (const at::ScalarType type : kTypes) {
      std::vector<int64_t> send, receive;
      std::vector<at::Tensor> outgoing, expected;
      for (int r = 0; r < ranks; ++r) {
        send.push_back(num_rows(rank, r, round));
        receive.push_back(num_rows(r, rank, round));
        outgoing.push_back(values(rank, send[r] * 6, type, r).view({-1, 2, 3}));
        expected.push_back(values(r, receive[r] * 6, type, rank).view({-1, 2, 3}));
      }
      const at::Tensor in = at::cat(outgoing).contiguous(), wanted = at::cat(expected);
      at::Tensor out = at::empty_like(wanted);
      axis->all_to_all_v(out, receive, in, send);
      CHECK(at::equal(out, wanted));
    }
  }
}

TEST_CASE("all_gather_text gives every rank's text, empty ones too", ALL_RANKS) {
  const auto axis = world();
  const auto text = [](int rank) { return std::string(rank % 2 ? 0 : 3000 + rank, 'a' + rank); };
  const std::vector<std::string> all = axis->all_gather_text(text(axis->rank()));
  REQUIRE(static_cast<int>(all.size()) == axis->size());
  for (int r = 0; r < axis->size(); ++r) CHECK(all[r] == text(r));
}

TEST_CASE("Messages longer than MPI's counts travel in pieces", ALL_RANKS) {
  const auto axis = world();
  set_message_piece_bytes(1000);
  at::Tensor tensor = values(axis->rank(), 30011, at::kFloat);
  axis->all_reduce(tensor);
  set_message_piece_bytes(int64_t{256} << 20);
  CHECK(at::equal(tensor, sum_in_rank_order(axis->size(), 30011, at::kFloat)));
}

TEST_CASE("A collective that a rank does not join is named when its time is up",
          "[distributed][communicator][ranks2][ranks4]") {
  const auto axis = world();
  MPI_Comm copy;
  MPI_Comm_dup(MPI_COMM_WORLD, &copy);
  {
    const auto doomed = mpi_communicator(copy, "edp");
    doomed->barrier();
    if (axis->rank() == 0) {
      const double limit = collective_timeout();
      set_collective_timeout(0.3);
      at::Tensor tensor = at::zeros({3});
      std::string message;
      try {
        doomed->all_reduce(tensor);
      } catch (const cohort::Error& error) {
        message = error.what();
      }
      set_collective_timeout(limit);
      CAPTURE(message);
      CHECK(message.find("all_reduce number 1 on axis edp has taken its rank 0 ") == 0);
      CHECK(message.find("nothing came from its rank 1") != std::string::npos);
    }
    axis->barrier();
  }
  at::Tensor after = values(axis->rank(), 10, at::kDouble);
  axis->all_reduce(after);
  CHECK(at::equal(after, sum_in_rank_order(axis->size(), 10, at::kDouble)));
}

TEST_CASE("A message of another size than expected is an error with its operation",
          "[distributed][communicator][ranks2]") {
  const auto axis = world();
  at::Tensor tensor = at::zeros({axis->rank() == 0 ? 2 : 200});
  std::string message;
  try {
    axis->all_reduce(tensor);
  } catch (const cohort::Error& error) {
    message = error.what();
  }
  CAPTURE(message);
  CHECK(message.find("all_reduce number 0 on axis world") == 0);
}
