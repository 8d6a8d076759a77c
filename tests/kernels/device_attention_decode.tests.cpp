// The decoding kernels executed on the host against softmax over the listed rows in double.
#include "kernels/cuda/attention_decode.cuh"

#include <cmath>
#include <random>
#include <vector>

#include "tests/kernels/device_runs.h"

using namespace cohort::kernels::emulated;
namespace host = cohort::kernels::host;

namespace {

const host::Schedule kOrders[] = {
    {host::Order::kInOrder}, {host::Order::kReversed}, {host::Order::kRandom, 5}};

float value(float x) { return x; }
float value(bf16 x) { return __bfloat162float(x); }
void set(float& to, float x) { to = x; }
void set(bf16& to, float x) { to = __float2bfloat16_rn(x); }

/// Sequences of the given lengths in blocks of 16 rows, scattered over the cache.
template <class T>
struct DecodeCase {
  DecodeAttentionProblem p;
  std::vector<int64_t> spans, first_span{0}, position;
  std::vector<std::vector<int64_t>> rows;
  std::vector<T> q, cache;

  DecodeCase(const std::vector<int64_t>& lengths, int64_t heads, int64_t latent, int64_t rope) {
    std::mt19937 generator(9);
    std::normal_distribution<float> normal;
    int64_t blocks = 0;
    for (const auto n : lengths) blocks += (n + 15) / 16;
    int64_t next = blocks;  // taken from the end: neighbours in a sequence are none in the cache
    for (const auto n : lengths) {
      rows.emplace_back();
      for (int64_t at = 0; at < n; at += 16) {
        const int64_t first = --next * 16, count = std::min<int64_t>(16, n - at);
        spans.insert(spans.end(), {first, count});
        for (int64_t i = 0; i < count; ++i) rows.back().push_back(first + i);
      }
      first_span.push_back(static_cast<int64_t>(spans.size() / 2));
      position.push_back(n - 1);
      p.longest = std::max(p.longest, n);
    }
    p.queries = static_cast<int64_t>(lengths.size()), p.heads = heads;
    p.latent_dim = latent, p.rope_dim = rope, p.row = latent + rope;
    p.scale = 1.5f / std::sqrt(static_cast<float>(latent + rope));
    q.resize(p.queries * heads * p.row), cache.resize(blocks * 16 * p.row);
    for (auto& x : q) set(x, normal(generator));
    for (auto& x : cache) set(x, NAN);  // rows that no sequence sees must not matter
    for (const auto& of : rows)
      for (const auto row : of)
        for (int64_t d = 0; d < p.row; ++d) set(cache[row * p.row + d], normal(generator));
  }

  std::vector<T> run() const {
    DecodeAttentionProblem on = p;
    on.spans = spans.data(), on.first_span = first_span.data(), on.position = position.data();
    std::vector<T> out(p.queries * p.heads * p.latent_dim);
    for (auto& x : out) set(x, NAN);
    std::vector<float4> workspace(attention_decode_workspace(on) / 16 + 1,
                                  float4{NAN, NAN, NAN, NAN});
    attention_decode(on, q.data(), cache.data(), out.data(), workspace.data(), nullptr);
    return out;
  }

  /// Largest |is - want| / (1 + |want|).
  double error(const std::vector<T>& is) const {
    double worst = 0;
    for (int64_t t = 0; t < p.queries; ++t)
      for (int64_t h = 0; h < p.heads; ++h) {
        std::vector<double> w, want(p.latent_dim);
        double most = -INFINITY, sum = 0;
        const int64_t at = t * p.heads + h;
        for (const auto row : rows[t]) {
          double s = 0;
          for (int64_t d = 0; d < p.row; ++d)
            s += double{value(q[at * p.row + d])} * value(cache[row * p.row + d]);
          w.push_back(s * p.scale);
          most = std::max(most, w.back());
        }
        for (auto& x : w) sum += x = std::exp(x - most);
        for (size_t j = 0; j < w.size(); ++j)
          for (int64_t d = 0; d < p.latent_dim; ++d)
            want[d] += w[j] / sum * value(cache[rows[t][j] * p.row + d]);
        for (int64_t d = 0; d < p.latent_dim; ++d) {
          const double x = value(is[at * p.latent_dim + d]);
          worst = std::max(
              worst, std::isfinite(x) ? std::abs(x - want[d]) / (1 + std::abs(want[d])) : INFINITY);
        }
      }
    return worst;
  }
};

// Sums are fp32; a bf16 result is rounded once, and beyond 16 heads the weights are too.
template <class T>
constexpr double kTolerance = sizeof(T) == 4 ? 1e-5 : 0.0025;
constexpr double kManyTolerance = 0.006;

template <class T>
void check_tails(int64_t latent, int64_t rope, int64_t heads, int64_t rows_per_split) {
  DecodeCase<T> c({1, 15, 16, 17, 63, 64, 65, 130}, heads, latent, rope);
  c.p.rows_per_split = rows_per_split;
  cohort::tests::combinations += static_cast<int64_t>(c.rows.size());
  INFO(latent << ", " << heads << " heads, splits of " << rows_per_split);
  for (const auto& order : kOrders) {
    const host::UseSchedule use(order);
    CHECK(c.error(c.run()) < (sizeof(T) == 2 && heads > 16 ? kManyTolerance : kTolerance<T>));
  }
}

}  // namespace

TEST_CASE("Emulated decoding is softmax over the rows that the spans list, at every tail",
          "[kernels-device_attention]") {
  check_tails<float>(256, 32, 3, 2048);
  check_tails<float>(256, 32, 17, 33);
  check_tails<bf16>(256, 32, 3, 64);
  check_tails<bf16>(512, 64, 2, 50);
  check_tails<float>(512, 64, 2, 1024);
}

TEST_CASE("Emulated decoding of many heads, on tensor cores, is the same function",
          "[kernels-device_attention]") {
  check_tails<bf16>(256, 32, 17, 2048);
  check_tails<bf16>(256, 32, 65, 33);
  check_tails<bf16>(512, 64, 64, 50);
}

TEST_CASE("A decoded token's bits do not depend on the other tokens",
          "[kernels-device_attention]") {
  DecodeCase<float> c({70, 40}, 2, 256, 32);
  c.p.rows_per_split = 32;
  const auto both = c.run();
  c.p.queries = 1;
  const auto one = c.run();
  CHECK(std::equal(one.begin(), one.end(), both.begin()));

  DecodeCase<bf16> many({70, 40}, 20, 256, 32);
  const auto of_both = cohort::tests::bytes_of(many.run());
  many.p.queries = 1;
  const auto of_one = cohort::tests::bytes_of(many.run());
  CHECK(std::equal(of_one.begin(), of_one.end(), of_both.begin()));
}

TEST_CASE("Each barrier, wait and lane of the decoding kernels is needed: its fault is caught",
          "[kernels-device_attention]") {
  const DecodeCase<float> c({90}, 2, 256, 32);
  REQUIRE(c.error(c.run()) < kTolerance<float>);
  CHECK(cohort::tests::faults_not_caught([&] { return cohort::tests::bytes_of(c.run()); }) ==
        std::vector<std::string>{});
  const DecodeCase<bf16> many({90}, 20, 256, 32);
  REQUIRE(many.error(many.run()) < kManyTolerance);
  CHECK(cohort::tests::faults_not_caught([&] { return cohort::tests::bytes_of(many.run()); }) ==
        std::vector<std::string>{});
}

TEST_CASE("Sizes without a decoding kernel are refused", "[kernels-device_attention]") {
  DecodeCase<float> c({4}, 1, 256, 32);
  c.p.latent_dim = 128;
  CHECK_THROWS_WITH(c.run(), Catch::Matchers::Contains("latents of 128"));
  c.p.latent_dim = 256, c.p.rows_per_split = 4096;
  CHECK_THROWS_WITH(c.run(), Catch::Matchers::Contains("4096 a split"));
}
