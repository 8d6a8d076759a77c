// Generation over expert-parallel ranks.
#include "rl/generator.h"
#include "core/base/error.h"
#include "core/nn/linear.h"
#include "tests/catch.h"
#include "tests/moe/tiny.h"

using namespace cohort;

namespace {

core::ModelConfig small_model() {
  auto config = tests::tiny_model();
  config.num_nextn_predict_layers = 0;
  config.eos_token_id = 60;
  return config;
}

}  // namespace

TEST_CASE("Experts on several ranks draw the samples of one rank",
          "[rl-generator][ranks2][ranks4]") {
  core::MeshConfig config;
  config.ep = 2;
  const auto mesh = distributed::make_mesh(config);
  const auto alone = distributed::make_local_mesh();
  moe::Transformer whole(small_model(), alone.ep, 3, at::kFloat);
  moe::Transformer model(small_model(), mesh.ep, 3, at::kFloat);
  // Ranks have different work, and the last has none.
  std::vector<rl::GenerationRequest> requests;
  if (mesh.shape.rank + 1 < mesh.shape.world)
    for (int r = 0; r <= mesh.shape.rank; ++r)
      requests.push_back({{3, static_cast<int32_t>(5 + r)}, {uint64_t(r), uint64_t(r + 10)}});
  core::SamplingConfig sampling;
  sampling.max_new_tokens = 25;
  rl::Generator shared(model, nullptr, mesh.ep, {3, 0, true}), single(whole, nullptr, alone.ep, {});
  const auto ours = shared.generate(requests, sampling);
  const auto theirs = single.generate(requests, sampling);
  REQUIRE(ours.size() == theirs.size());
  for (size_t r = 0; r < ours.size(); ++r)
    for (size_t s = 0; s < ours[r].size(); ++s) {
      CHECK(ours[r][s].tokens == theirs[r][s].tokens);
      if (core::own_fp32_gemm()) CHECK(ours[r][s].log_prob == theirs[r][s].log_prob);
    }
}

TEST_CASE("A request that one rank cannot meet is an error on all", "[rl-generator][ranks2]") {
  core::MeshConfig config;
  config.ep = 2;
  const auto mesh = distributed::make_mesh(config);
  moe::Transformer model(small_model(), mesh.ep, 3, at::kFloat);
  rl::Generator generator(model, nullptr, mesh.ep, {});
  std::vector<rl::GenerationRequest> requests{{{3}, {1}}};
  if (mesh.shape.rank == 1) requests[0].prompt.clear();
  CHECK_THROWS_AS(generator.generate(requests, {}), InputError);
}
