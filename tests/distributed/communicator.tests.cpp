#include "distributed/communicator.h"

#include "core/base/error.h"
#include "distributed/rank_sums.h"
#include "tests/catch.h"

using namespace cohort::distributed;

TEST_CASE("A communicator of one rank copies", "[distributed][communicator]") {
  const auto axis = local_communicator("edp");
  CHECK(axis->size() == 1);
  CHECK(axis->axis() == "edp");
  at::Tensor in = at::arange(6, at::kFloat).view({3, 2}), out = at::zeros({3, 2});
  axis->all_gather(out, in);
  CHECK(at::equal(in, out));
  out.zero_();
  const auto work = axis->reduce_scatter_async(out, in);
  work->wait();
  CHECK(work->test());
  CHECK(at::equal(in, out));
  out.zero_();
  axis->all_to_all_v(out, {3}, in, {3});
  CHECK(at::equal(in, out));
  CHECK(axis->all_gather_text("a") == std::vector<std::string>{"a"});
  CHECK_THROWS_AS(axis->broadcast(out, 1), cohort::Error);
}

TEST_CASE("Sizes that do not fit are refused with their numbers", "[distributed][communicator]") {
  const auto axis = local_communicator("ep");
  at::Tensor in = at::zeros({3, 2}), out = at::zeros({2, 2}), wide = at::zeros({3, 3});
  CHECK_THROWS_AS(axis->all_gather(out, in), cohort::Error);
  CHECK_THROWS_AS(axis->all_to_all_v(out, {2}, in, {2}), cohort::Error);
  CHECK_THROWS_AS(axis->all_to_all_v(out, {3}, in, {3}), cohort::Error);
  CHECK_THROWS_AS(axis->all_to_all_v(wide, {3}, in, {3}), cohort::Error);
  at::Tensor transposed = at::zeros({2, 3}).t();
  CHECK_THROWS_AS(axis->all_reduce(transposed, ReduceOp::kSum), cohort::Error);
}

TEST_CASE("Rows are summed in order and bf16 is rounded once", "[distributed][communicator]") {
  const int64_t n = 3001;
  std::vector<at::Tensor> rows;
  for (int r = 0; r < 5; ++r) rows.push_back(at::randn({n}).to(at::kBFloat16));
  std::vector<const void*> pointers;
  for (const at::Tensor& row : rows) pointers.push_back(row.data_ptr());
  at::Tensor expected = at::zeros({n});
  for (const at::Tensor& row : rows) expected += row.to(at::kFloat);
  at::Tensor out = at::empty({n}, at::kBFloat16);
  reduce_rows(out.data_ptr(), pointers, n, at::kBFloat16, ReduceOp::kSum);
  CHECK(at::equal(out, expected.to(at::kBFloat16)));

  // (1e8 + 1) - 1e8 is 0 in fp32, 1e8 - 1e8 + 1 is 1: the order shows.
  at::Tensor a = at::full({n}, 1e8f), b = at::ones({n}), c = at::full({n}, -1e8f);
  at::Tensor sum = at::empty({n});
  reduce_rows(
      sum.data_ptr(), {a.data_ptr(), b.data_ptr(), c.data_ptr()}, n, at::kFloat, ReduceOp::kSum);
  CHECK(sum.eq(0).all().item<bool>());
  reduce_rows(
      a.data_ptr(), {a.data_ptr(), c.data_ptr(), b.data_ptr()}, n, at::kFloat, ReduceOp::kSum);
  CHECK(a.eq(1).all().item<bool>());
}

TEST_CASE("Maximum and minimum keep a NaN from any rank", "[distributed][communicator]") {
  const double nan = std::nan("");
  const std::vector<double> first{1, nan, 3}, second{2, 5, nan};
  for (const ReduceOp op : {ReduceOp::kMax, ReduceOp::kMin}) {
    std::vector<double> out(3);
    reduce_rows(out.data(), {first.data(), second.data()}, 3, at::kDouble, op);
    CHECK(out[0] == (op == ReduceOp::kMax ? 2 : 1));
    CHECK(std::isnan(out[1]));
    CHECK(std::isnan(out[2]));
  }
}
