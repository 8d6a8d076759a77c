// The Communicator over MPI, for tensors on the CPU.
//
// Everything but barrier and broadcast is posted as point-to-point messages, all at once: each pair
// of ranks exchanges what it must and no byte more, sums are our own (in the order of ranks, so
// they do not depend on the MPI library), and a rank that waits can say for whom.
#pragma once
#include <mpi.h>

#include <memory>
#include <string>

#include "distributed/communicator.h"

namespace cohort::distributed {

/// Takes `comm` over and frees it. `axis` is for messages.
std::shared_ptr<Communicator> mpi_communicator(MPI_Comm comm, std::string axis);

}  // namespace cohort::distributed
