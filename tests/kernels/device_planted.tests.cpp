// The kernels with an off-by-one planted in their tails (COHORT_PLANT_FAULT=kTail, a second
// library): the comparisons of the other device tests must see it.
#define COHORT_DEVICE planted_tail
#include <vector>

#include "kernels/cpu/dispatch.h"
#include "kernels/cuda/attention_decode.cuh"
#include "kernels/cuda/dispatch.cuh"
#include "kernels/cuda/elementwise.cuh"
#include "kernels/cuda/rms_norm.cuh"
#include "kernels/cuda/router.cuh"
#include "kernels/cuda/token_log_probs.cuh"
#include "tests/kernels/device_runs.h"

using namespace cohort::tests;
namespace cpu = cohort::kernels;
namespace planted = cohort::kernels::planted_tail;

TEST_CASE("An off-by-one in the tail of each dispatch and router kernel is caught",
          "[kernels-device]") {
  const int64_t T = 5, K = 2, D = 68, E = 9;
  std::vector<int64_t> expert;
  for (int64_t p = 0; p < T * K; ++p) expert.push_back(p * 4 % E);
  std::vector<int64_t> count(E, -1), pair_at(T * K, 0), place_of(T * K, 0), workspace(4 * E);
  planted::sort_pairs(expert.data(),
                      T * K,
                      E,
                      count.data(),
                      pair_at.data(),
                      place_of.data(),
                      workspace.data(),
                      nullptr);
  std::vector<int64_t> true_count(E), true_pair_at(T * K), true_place_of(T * K);
  cpu::sort_pairs(
      expert.data(), T * K, E, true_count.data(), true_pair_at.data(), true_place_of.data());
  CHECK(count != true_count);

  const auto in = normal_values<float>(T * D, 1), rows = normal_values<float>(T * K * D, 2);
  const auto gate = normal_values<float>(T * K, 3);
  std::vector<float> out(T * K * D), expected(T * K * D);
  planted::gather_rows(in.data(), true_pair_at.data(), K, T * K, D, out.data(), nullptr);
  cpu::gather_rows(in.data(), true_pair_at.data(), K, T * K, D, expected.data());
  CHECK(out != expected);
  planted::scatter_rows(rows.data(), true_pair_at.data(), T * K, D, out.data(), nullptr);
  cpu::scatter_rows(rows.data(), true_pair_at.data(), T * K, D, expected.data());
  CHECK(out != expected);
  planted::combine_rows(
      rows.data(), true_place_of.data(), gate.data(), T, K, D, out.data(), nullptr);
  cpu::combine_rows(rows.data(), true_place_of.data(), gate.data(), T, K, D, expected.data());
  CHECK(worst_error(out, expected) > 0.1);

  std::vector<float> d_gate(T * K), true_d_gate(T * K);
  planted::combine_rows_backward(in.data(),
                                 rows.data(),
                                 true_place_of.data(),
                                 gate.data(),
                                 T,
                                 K,
                                 D,
                                 out.data(),
                                 d_gate.data(),
                                 nullptr);
  cpu::combine_rows_backward(in.data(),
                             rows.data(),
                             true_place_of.data(),
                             gate.data(),
                             T,
                             K,
                             D,
                             expected.data(),
                             true_d_gate.data());
  CHECK(worst_error(d_gate, true_d_gate) > 1e-3);

  // All logits alike but the last, which is the best.
  std::vector<float> logits(E, 0), scores(E, -1), chosen_gate(1), d_logits(E, -1);
  logits[E - 1] = 1;
  std::vector<int64_t> chosen(1, -1);
  const planted::RouterShape shape{1, E, 1};
  planted::route(
      shape, logits.data(), nullptr, scores.data(), chosen.data(), chosen_gate.data(), nullptr);
  CHECK(chosen[0] != E - 1);
  planted::route_backward(
      shape, scores.data(), chosen.data(), gate.data(), nullptr, d_logits.data(), nullptr);
  CHECK(d_logits[E - 1] == -1);
}

TEST_CASE("An off-by-one in the tail of each row kernel is caught", "[kernels-device]") {
  const int64_t rows = 3, dim = 36;
  const auto x = normal_values<float>(rows * 2 * dim, 1), weight = normal_values<float>(dim, 2);
  std::vector<float> y(rows * dim, -9), r(rows, -9), d(rows * 2 * dim, -9);
  planted::rms_norm_forward(
      x.data(), dim, weight.data(), rows, dim, 0.0f, y.data(), r.data(), nullptr);
  double squares = 0;
  for (int64_t i = 0; i < dim; ++i) squares += x[i] * x[i];
  CHECK(std::abs(r[0] - 1 / std::sqrt(squares / dim)) > 1e-4);
  planted::rms_norm_backward(x.data(),
                             dim,
                             weight.data(),
                             r.data(),
                             x.data(),
                             rows,
                             dim,
                             d.data(),
                             static_cast<float*>(nullptr),
                             nullptr,
                             nullptr);
  CHECK(d[rows * dim - 1] == -9);
  std::fill(d.begin(), d.end(), -9.0f);
  std::fill(y.begin(), y.end(), -9.0f);
  planted::swiglu_forward(x.data(), rows, dim, y.data(), nullptr);
  CHECK(y.back() == -9);
  planted::swiglu_backward(x.data(), x.data(), rows, dim, d.data(), nullptr);
  CHECK(d.back() == -9);
  const planted::RopeShape shape{{dim, dim, dim}, 1, rows, 1, dim, true, 1};
  std::fill(y.begin(), y.end(), -9.0f);
  planted::rope(shape, x.data(), x.data(), x.data(), y.data(), nullptr);
  CHECK(y.back() == -9);

  std::vector<float> logits(dim, 0);
  logits[dim - 1] = 5;
  const std::vector<int64_t> target = {dim - 1};
  std::vector<planted::SoftmaxState> state(1);
  const planted::LogitTile<float> tile{logits.data(), target.data(), 1, dim, 0, 1.0f};
  planted::add_logit_tile(tile, state.data(), nullptr);
  CHECK(state[0].top == 0);
  planted::logit_tile_gradient(tile, state.data(), weight.data(), nullptr);
  CHECK(logits[dim - 1] == 5);

  std::vector<float> w(5, 1), m(5, 0), v(5, 0);
  const planted::AdamWTensor<float> tensor{w.data(), x.data(), m.data(), v.data(), nullptr, 5};
  planted::adamw(&tensor, 1, {0.9f, 1, 0.9f, 0.1f, 0.9f, 0.1f, 1, 1e-8f, -0.1f}, nullptr);
  CHECK(w[3] != 1);
  CHECK(w[4] == 1);
}

TEST_CASE("An off-by-one in the tail of the decoding kernel is caught", "[kernels-device]") {
  // A query of zeros weighs all rows alike, so rows of ones give ones.
  const int64_t rows = 5, row = 288;
  const std::vector<int64_t> spans = {0, rows}, first_span = {0, 1}, position = {rows - 1};
  const std::vector<float> q(row, 0), cache(rows * row, 1);
  planted::DecodeAttentionProblem p;
  p.queries = 1, p.latent_dim = 256, p.rope_dim = 32, p.row = row, p.longest = rows;
  p.spans = spans.data(), p.first_span = first_span.data(), p.position = position.data();
  std::vector<float> out(256), workspace(planted::attention_decode_workspace(p) / 4);
  planted::attention_decode(p, q.data(), cache.data(), out.data(), workspace.data(), nullptr);
  CHECK(std::abs(out[0] - 1) > 0.1);

  p.heads = 17;
  const std::vector<planted::bf16> wide_q(p.heads * row, planted::bf16{0}),
      wide_cache(rows * row, __float2bfloat16_rn(1));
  std::vector<planted::bf16> wide_out(p.heads * 256);
  workspace.resize(planted::attention_decode_workspace(p) / 4);
  planted::attention_decode(
      p, wide_q.data(), wide_cache.data(), wide_out.data(), workspace.data(), nullptr);
  CHECK(std::abs(__bfloat162float(wide_out[0]) - 1) > 0.1);
}
