// The Communicator over NCCL, for tensors on this rank's GPU.
//
// Collectives run on a stream of the communicator's own. A blocking operation does not block the
// host: what ATen computes afterwards waits for it on the GPU. NCCL's errors, and collectives that
// take longer than collective_timeout(), are seen by the NcclWatchdog; they surface as an Error in
// the next operation of any communicator.
//
// Counts, texts, barriers and tensors in host memory go over MPI. Two things differ from MPI: the
// order of a sum is NCCL's choice (still the same bits on every rank), and so is max or min of NaN.
#pragma once
#include <mpi.h>

#include <memory>
#include <string>

#include "distributed/communicator.h"
#include "distributed/nccl_watchdog.h"

namespace cohort::distributed {

/// Collective over `comm`, which it takes over and frees. NCCL's id travels over it. `axis` is for
/// messages. Throws Error, on every rank alike where it can, when NCCL does not come up.
std::shared_ptr<Communicator> nccl_communicator(MPI_Comm comm,
                                                std::string axis,
                                                std::shared_ptr<NcclWatchdog> watchdog);

}  // namespace cohort::distributed
