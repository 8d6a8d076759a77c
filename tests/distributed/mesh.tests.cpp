#include "distributed/mesh.h"

#include <set>
#include <string>

#include "core/base/error.h"
#include "tests/catch.h"

using namespace cohort::distributed;
using cohort::core::MeshConfig;

namespace {

std::string refusal(const MeshConfig& config, int world) {
  try {
    mesh_shape(config, world, 0);
  } catch (const cohort::InputError& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("Neighbouring ranks share an ep group and ranks ep apart hold the same experts",
          "[distributed][mesh]") {
  struct Row {
    int world, ep, rank, ep_rank, edp_rank;
  };
  for (const Row& row : {Row{1, 1, 0, 0, 0},
                         Row{4, 1, 3, 0, 3},
                         Row{4, 2, 1, 1, 0},
                         Row{4, 2, 2, 0, 1},
                         Row{4, 4, 3, 3, 0},
                         Row{12, 4, 7, 3, 1},
                         Row{12, 3, 11, 2, 3}}) {
    const MeshShape s = mesh_shape({0, row.ep, 1}, row.world, row.rank);
    CAPTURE(row.world, row.ep, row.rank);
    CHECK(s.dp == row.world);
    CHECK(s.edp == row.world / row.ep);
    CHECK(s.dp_rank == row.rank);
    CHECK(s.ep_rank == row.ep_rank);
    CHECK(s.edp_rank == row.edp_rank);
    CHECK(s.pp_rank == 0);
  }
}

TEST_CASE("Coordinates tell every two ranks apart", "[distributed][mesh]") {
  for (const int ep : {1, 2, 3, 4, 6, 12}) {
    std::set<std::pair<int, int>> seen;
    for (int rank = 0; rank < 12; ++rank) {
      const MeshShape s = mesh_shape({12, ep, 1}, 12, rank);
      CHECK(s.ep * s.edp == s.dp);
      seen.insert({s.ep_rank, s.edp_rank});
    }
    CHECK(seen.size() == 12);
  }
}

TEST_CASE("An impossible mesh is refused with the values that would fit", "[distributed][mesh]") {
  CHECK(refusal({0, 3, 1}, 4) == "mesh.ep=3 does not divide dp=4 (world 4 / pp 1): use 1, 2 or 4");
  CHECK(refusal({0, 2, 1}, 1) == "mesh.ep=2 does not divide dp=1 (world 1 / pp 1): use 1");
  CHECK(refusal({0, 0, 1}, 2) == "mesh.ep=0 does not divide dp=2 (world 2 / pp 1): use 1 or 2");
  CHECK(refusal({3, 1, 1}, 4) ==
        "mesh.dp=3 times mesh.pp=1 needs 3 ranks, but the job has 4 ranks: use dp=4 or auto, or "
        "start it with mpirun -n 3");
  CHECK(refusal({2, 1, 1}, 1).find("the job has 1 rank:") != std::string::npos);
  CHECK(refusal({0, 1, 2}, 4).find("mesh.pp=2") == 0);
  CHECK(refusal({-1, 1, 1}, 4).find("mesh.dp=-1") == 0);
  CHECK(refusal({4, 2, 1}, 4).empty());
}
