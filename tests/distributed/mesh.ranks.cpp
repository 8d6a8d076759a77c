#include "distributed/mesh.h"

#include "distributed/launch.h"
#include "tests/catch.h"

using namespace cohort::distributed;

TEST_CASE("Every axis connects the ranks that the shape says",
          "[distributed][mesh][ranks1][ranks2][ranks4]") {
  const int world = world_size();
  for (int ep = 1; ep <= world; ep *= 2) {
    const Mesh mesh = make_mesh({0, ep, 1});
    const MeshShape& s = mesh.shape;
    CHECK(mesh.world->size() == world);
    CHECK(mesh.world->rank() == s.rank);
    CHECK(mesh.dp->size() == s.dp);
    CHECK(mesh.dp->rank() == s.dp_rank);
    CHECK(mesh.ep->size() == ep);
    CHECK(mesh.ep->rank() == s.ep_rank);
    CHECK(mesh.edp->size() == world / ep);
    CHECK(mesh.edp->rank() == s.edp_rank);
    CHECK(mesh.dp_gradients->size() == s.dp);
    CHECK(mesh.edp_gradients->rank() == s.edp_rank);
    CHECK(mesh.ep->axis() == "ep");

    // Who is there: the world ranks of each axis, in order.
    const auto members = [&](Communicator& axis) {
      at::Tensor own = at::full({1}, s.rank, at::kLong), all = at::empty({axis.size()}, at::kLong);
      axis.all_gather(all, own);
      return std::vector<int64_t>(all.data_ptr<int64_t>(), all.data_ptr<int64_t>() + all.numel());
    };
    std::vector<int64_t> ep_members, edp_members;
    for (int i = 0; i < ep; ++i) ep_members.push_back(s.edp_rank * ep + i);
    for (int i = 0; i < world / ep; ++i) edp_members.push_back(i * ep + s.ep_rank);
    CHECK(members(*mesh.ep) == ep_members);
    CHECK(members(*mesh.edp) == edp_members);
  }
}
