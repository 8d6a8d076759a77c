// Bringing ranks up and down: under mpirun or srun, or alone.
#pragma once
#include <functional>

namespace cohort::distributed {

/// Initialises MPI when the process was started by mpirun, mpiexec or srun with several tasks;
/// otherwise the world is this process. Uses one thread a rank for computation when ranks on this
/// machine outnumber its cores (OMP_NUM_THREADS, if set, wins).
void launch(int* argc, char*** argv);
int world_rank();
int world_size();
bool launched_with_mpi();

/// Runs `body` and turns exceptions into exit codes: InputError 2, anything else 1, one line on
/// stderr. With several ranks the whole job is ended with that code (MPI_Abort), so that no other
/// rank waits for ever. An InputError that every rank would meet in the same way is printed by rank
/// 0 alone. Finalises MPI.
int run_ranks(const std::function<int()>& body);

/// Set by SIGTERM or SIGINT once `catch_stop_signals` was called; a second signal ends the process
/// at once.
void catch_stop_signals();
bool stop_requested();

}  // namespace cohort::distributed
