// Entry point of every C++ test program. MPI is brought up only under mpirun; a rank that fails
// takes the job down.
#define CATCH_CONFIG_RUNNER
#include "tests/catch.h"

#include <mpi.h>

#include <cstdlib>

int main(int argc, char** argv) {
  const bool under_launcher = std::getenv("OMPI_COMM_WORLD_SIZE") || std::getenv("PMI_SIZE");
  if (under_launcher) {
    int provided = 0;
    MPI_Init_thread(&argc, &argv, MPI_THREAD_MULTIPLE, &provided);
  }
  const int failed = Catch::Session().run(argc, argv);
  if (under_launcher) {
    if (failed) MPI_Abort(MPI_COMM_WORLD, 1);
    MPI_Finalize();
  }
  return failed ? 1 : 0;
}
