#include "rl/log_likelihood.h"

#include "rl/perplexity.h"
#include "tests/catch.h"
#include "tests/moe/tiny.h"

using namespace cohort;

namespace {

/// Requests of several passes, whose number no rank count divides.
std::vector<rl::LikelihoodRequest> some_requests(size_t count) {
  std::vector<rl::LikelihoodRequest> requests(count);
  for (size_t i = 0; i < count; ++i)
    for (uint64_t j = 0; j < 20 + i % 7 * 60; ++j)
      (j < 5 ? requests[i].context : requests[i].continuation)
          .push_back(static_cast<int32_t>(core::random_bits(3, i, j) % 61));
  return requests;
}

}  // namespace

TEST_CASE("log-likelihoods are the same on every mesh",
          "[rl-log-likelihood][ranks1][ranks2][ranks4]") {
  core::ModelConfig config = tests::tiny_model();
  config.num_nextn_predict_layers = 0;
  const auto requests = some_requests(71);
  const distributed::Mesh local = distributed::make_local_mesh();
  moe::Transformer alone(config, local.ep, 3, at::kFloat);
  const auto expected = rl::log_likelihoods(alone, local, requests, 512);
  for (int ep = 1; ep <= distributed::make_mesh({}).shape.dp; ep *= 2) {
    const distributed::Mesh mesh = distributed::make_mesh({0, ep, 1});
    moe::Transformer model(config, mesh.ep, 3, at::kFloat);
    // Fewer requests than ranks too: the others still take part.
    for (const size_t count : {size_t{71}, size_t{1}}) {
      const auto got = rl::log_likelihoods(model, mesh, std::span(requests).first(count), 512);
      REQUIRE(got.size() == count);
      for (size_t i = 0; i < count; ++i) {
        CHECK(got[i].log_prob == Approx(expected[i].log_prob).epsilon(1e-6));
        CHECK(got[i].likeliest == expected[i].likeliest);
      }
    }
  }
}
