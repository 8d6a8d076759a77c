#include "distributed/mesh.h"

#include <mpi.h>

#include <vector>

#include "core/base/error.h"
#include "distributed/communicator_mpi.h"
#include "distributed/communicator_nccl.h"
#include "distributed/device_choice.h"
#include "distributed/launch.h"

namespace cohort::distributed {
namespace {

std::string divisors(int n) {
  std::vector<int> found;
  for (int d = 1; d <= n; ++d)
    if (n % d == 0) found.push_back(d);
  if (found.size() == 1) return "1";
  const int last = found.back();
  found.pop_back();
  return fmt::format("{} or {}", fmt::join(found, ", "), last);
}

std::string ranks(int n) { return fmt::format("{} rank{}", n, n == 1 ? "" : "s"); }

/// Ranks with the same color form a communicator, in the order of world ranks.
std::shared_ptr<Communicator> split(int color,
                                    int size,
                                    const char* axis,
                                    const std::shared_ptr<NcclWatchdog>& gpu) {
  if (!launched_with_mpi()) return local_communicator(axis);
  MPI_Comm comm = MPI_COMM_NULL;
  // Collective over the world: ranks whose axis has one rank take part too.
  const int code = MPI_Comm_split(MPI_COMM_WORLD, color, world_rank(), &comm);
  COHORT_CHECK(code == MPI_SUCCESS, "MPI_Comm_split for axis {} failed with code {}", axis, code);
  if (size > 1 && gpu) return nccl_communicator(comm, axis, gpu);
  if (size > 1) return mpi_communicator(comm, axis);
  MPI_Comm_free(&comm);
  return local_communicator(axis);
}

}  // namespace

MeshShape mesh_shape(const core::MeshConfig& config, int world, int rank) {
  COHORT_CHECK(rank >= 0 && rank < world, "rank {} of a world of {}", rank, world);
  COHORT_CHECK_INPUT(config.pp == 1,
                     "mesh.pp={}: layers are not spread over pipeline stages yet: use 1",
                     config.pp);
  COHORT_CHECK_INPUT(config.dp >= 0,
                     "mesh.dp={} is not a number of ranks: use {} (world {} / pp {}) or auto",
                     config.dp,
                     world / config.pp,
                     world,
                     config.pp);
  const int dp = config.dp == 0 ? world / config.pp : config.dp;
  COHORT_CHECK_INPUT(dp * config.pp == world,
                     "mesh.dp={} times mesh.pp={} needs {}, but the job has {}: use dp={} or auto, "
                     "or start it with mpirun -n {}",
                     dp,
                     config.pp,
                     ranks(dp * config.pp),
                     ranks(world),
                     world / config.pp,
                     dp * config.pp);
  COHORT_CHECK_INPUT(config.ep >= 1 && dp % config.ep == 0,
                     "mesh.ep={} does not divide dp={} (world {} / pp {}): use {}",
                     config.ep,
                     dp,
                     world,
                     config.pp,
                     divisors(dp));
  MeshShape shape;
  shape.world = world;
  shape.dp = dp;
  shape.ep = config.ep;
  shape.edp = dp / config.ep;
  shape.pp = config.pp;
  shape.rank = rank;
  shape.pp_rank = rank / dp;
  shape.dp_rank = rank % dp;
  shape.ep_rank = shape.dp_rank % shape.ep;
  shape.edp_rank = shape.dp_rank / shape.ep;
  return shape;
}

Mesh make_mesh(const core::MeshConfig& config) {
  std::shared_ptr<NcclWatchdog> gpu;
#ifdef COHORT_GPU
  if (run_device().is_cuda())
    gpu = std::make_shared<NcclWatchdog>(nccl_calls(run_device().index()));
#endif
  Mesh mesh = make_mesh(config, gpu);
  mesh.device = run_device();
  return mesh;
}

Mesh make_mesh(const core::MeshConfig& config, const std::shared_ptr<NcclWatchdog>& gpu) {
  Mesh mesh;
  mesh.shape = mesh_shape(config, world_size(), world_rank());
  const MeshShape& s = mesh.shape;
  const int dp_color = s.pp_rank;
  const int ep_color = s.pp_rank * s.edp + s.edp_rank;
  const int edp_color = s.pp_rank * s.ep + s.ep_rank;
  mesh.world = split(0, s.world, "world", gpu);
  mesh.dp = split(dp_color, s.dp, "dp", gpu);
  mesh.ep = split(ep_color, s.ep, "ep", gpu);
  mesh.edp = split(edp_color, s.edp, "edp", gpu);
  mesh.dp_gradients = split(dp_color, s.dp, "dp (gradients)", gpu);
  mesh.edp_gradients = split(edp_color, s.edp, "edp (gradients)", gpu);
  return mesh;
}

Mesh make_local_mesh() {
  return {{},
          local_communicator("world"),
          local_communicator("dp"),
          local_communicator("ep"),
          local_communicator("edp"),
          local_communicator("dp (gradients)"),
          local_communicator("edp (gradients)"),
          at::kCPU};
}

}  // namespace cohort::distributed
