// The device branch over several ranks: the exchange of rows, and gradients summed over ranks.
#include "tests/moe/device_branch.h"

using namespace cohort;
using namespace cohort::tests;

namespace {

void check_meshes(const std::vector<int>& eps) {
  TrainingCase c;
  c.micro_batch = 1;
  const Trained expected = train(c, distributed::make_local_mesh());
  const DeviceBranch branch;
  for (const int ep : eps)
    for (const bool recompute : {false, true}) {
      INFO("ep " << ep << ", recompute " << recompute);
      c.recompute = recompute;
      core::MeshConfig config;
      config.ep = ep;
      const auto mesh = distributed::make_mesh(config);
      check_alike(train(c, mesh), expected, 1e-10);
    }
}

}  // namespace

TEST_CASE("Device branch: dp 2, ep 1 and 2 equal the CPU's one rank", "[moe-device][ranks2]") {
  check_meshes({1, 2});
}
TEST_CASE("Device branch: dp 4, ep 2 and 4 equal the CPU's one rank", "[moe-device][ranks4]") {
  check_meshes({2, 4});
}
