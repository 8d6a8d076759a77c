// Entry point of every C++ test program. MPI is brought up only under mpirun; a rank that fails
// takes the job down.
#define CATCH_CONFIG_RUNNER
#include "tests/catch.h"

#include <mpi.h>

#include "distributed/communicator.h"
#include "distributed/launch.h"

int main(int argc, char** argv) {
  cohort::distributed::launch(&argc, &argv);
  Catch::Session session;
  if (cohort::distributed::world_size() > 1) {
    // Ranks that went on after one had failed would wait for it, or take its next test's messages.
    session.configData().abortAfter = 1;
    cohort::distributed::set_collective_timeout(120);
  }
  int failed = session.applyCommandLine(argc, argv);
  if (failed == 0) failed = session.run();
  if (cohort::distributed::launched_with_mpi()) {
    if (failed) MPI_Abort(MPI_COMM_WORLD, 1);
    MPI_Finalize();
  }
  return failed ? 1 : 0;
}
