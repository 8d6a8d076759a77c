// A pretraining run from its config to its last checkpoint.
#pragma once
#include "core/config/config.h"
#include "moe/training_run.h"

namespace cohort::moe {

/// Collective over all ranks of the job. Writes to config.run.dir (DESIGN section 1). `resume`: go
/// on from the newest checkpoint there that verifies, on any mesh; from the start when there is
/// none. Without it, a folder that already holds a run is refused. SIGTERM or SIGINT save and end
/// the run early. `start` fills the weights of a run that starts anew (run.model); without it they
/// are drawn. Throws InputError for what the user can put right; Error when `max_skipped_in_a_row`
/// steps had a gradient that is not finite.
void pretrain(const core::Config& config, bool resume, const StartingWeights& start = {});

}  // namespace cohort::moe
