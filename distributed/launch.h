// Bringing ranks up and down: under mpirun or srun, or alone.
#pragma once
#include <functional>

namespace cohort::distributed {

/// Initialises MPI when the process was started by mpirun, mpiexec or srun with several tasks;
/// otherwise the world is this process. Divides the machine's cores among its ranks (at least one
/// thread each; OMP_NUM_THREADS, if set, wins). Exits with 2 and one line when srun started several
/// tasks without MPI support.
void launch(int* argc, char*** argv);
int world_rank();
int world_size();
bool launched_with_mpi();

/// Runs `body` and turns exceptions into exit codes: InputError 2, anything else 1, one line on
/// stderr. When all ranks fail within about two seconds of each other, each different message is
/// printed once, and the job ends in order with that code. Otherwise the whole job is ended with it
/// (MPI_Abort) after the message, so that no other rank waits for ever. Finalises MPI.
int run_ranks(const std::function<int()>& body);

/// Set by SIGTERM or SIGINT once `catch_stop_signals` was called; a second signal ends the process
/// at once.
void catch_stop_signals();
bool stop_requested();

}  // namespace cohort::distributed
