#include "distributed/launch.h"

#include <mpi.h>

#include <cstdio>
#include <cstdlib>
#include <exception>

#include "core/base/error.h"

namespace cohort::distributed {

void launch(int* argc, char*** argv) {
  if (launched_with_mpi()) {
    int provided = 0;
    MPI_Init_thread(argc, argv, MPI_THREAD_MULTIPLE, &provided);
  }
}
bool launched_with_mpi() {
  return std::getenv("OMPI_COMM_WORLD_SIZE") || std::getenv("PMI_SIZE");
}
int run_ranks(const std::function<int()>& body) {
  int code = 1;
  try {
    code = body();
  } catch (const InputError& error) {
    std::fprintf(stderr, "cohort: %s\n", error.what());
    code = 2;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "cohort: %s\n", error.what());
  }
  if (launched_with_mpi()) MPI_Finalize();
  return code;
}

}  // namespace cohort::distributed
