// The names under RUN_DIR/checkpoints, and the moves between them. Each move is one rename, so that
// a process that is killed leaves a state which the next one can read from the names alone:
//
//   step-N        complete
//   .tmp-step-N   being written, or left by a dead run: worth nothing
//   .old-step-N   complete, on its way to be replaced by a new step-N: if there is no step-N it is
//   the
//                 checkpoint of that step still, else worth nothing
//   .del-step-N   being deleted: worth nothing
#pragma once
#include <cstdint>
#include <string>

namespace cohort::distributed {

std::string step_path(const std::string& folder, int64_t step);
std::string temporary_path(const std::string& folder, int64_t step);

/// Makes the temporary step-N the checkpoint of that step, replacing the one there is. Throws
/// Error; the earlier one stands then.
void put_in_place(const std::string& folder, int64_t step);

/// Deletes step-N. Throws Error.
void delete_checkpoint(const std::string& folder, int64_t step);

/// Gives checkpoints back that a killed process was about to replace. Throws Error.
void restore_replaced(const std::string& folder);

/// restore_replaced, and removes what is worth nothing. Throws Error.
void clear_remains(const std::string& folder);

/// Removes a folder and all in it. Throws Error with the system's reason.
void remove_folder(const std::string& path);

}  // namespace cohort::distributed
