// Ranks arranged on named axes: world = pp x dp, ep divides dp, edp = dp / ep. The only place where
// rank arithmetic is done. Neighbouring ranks share an ep group, so that expert traffic stays
// inside a node where it can.
#pragma once
#include "core/config/config.h"
#include "distributed/communicator.h"

#include <memory>

namespace cohort::distributed {

/// Sizes of the axes and this rank's coordinates; a pure function of (world, rank, config).
struct MeshShape {
  int world = 1, dp = 1, ep = 1, edp = 1, pp = 1;
  int rank = 0, dp_rank = 0, ep_rank = 0, edp_rank = 0, pp_rank = 0;
};

/// Throws InputError when the axes do not fit the world (or each other), saying which values would.
MeshShape mesh_shape(const core::MeshConfig& config, int world, int rank);

/// The communicators of this rank's axes. Movable, one a process.
struct Mesh {
  MeshShape shape;
  std::shared_ptr<Communicator> world;  ///< Everyone (= dp while pp is 1).
  std::shared_ptr<Communicator> dp;     ///< Ranks that hold the same dense parameters.
  std::shared_ptr<Communicator> ep;     ///< Ranks that together hold each expert once.
  std::shared_ptr<Communicator> edp;    ///< Ranks that hold the same experts.
  std::shared_ptr<Communicator>
      dp_gradients;  ///< Twins of dp and edp for traffic that overlaps with backward.
  std::shared_ptr<Communicator> edp_gradients;
  at::Device device = at::kCPU;  ///< Where this rank's tensors live.
};

class NcclWatchdog;

/// Collective over all ranks, on run_device() (distributed/device_choice.h): communicators are of
/// MPI on the CPU, and on a GPU as below.
Mesh make_mesh(const core::MeshConfig& config);
/// Each axis of several ranks has a communicator of NCCL (distributed/communicator_nccl.h).
Mesh make_mesh(const core::MeshConfig& config, const std::shared_ptr<NcclWatchdog>& gpu);
/// This process alone, whatever the world: not collective. For tools that need a model and no
/// ranks, and for references in tests.
Mesh make_local_mesh();

}  // namespace cohort::distributed
