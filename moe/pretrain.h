// A pretraining run from its config to its last checkpoint.
#pragma once
#include "core/config/config.h"

namespace cohort::moe {

/// Collective over all ranks of the job. Writes to config.run.dir (DESIGN section 1). `resume`: go on
/// from the newest checkpoint there that verifies, on any mesh; from the start when there is none.
/// Without it, a folder that already holds a run is refused. SIGTERM or SIGINT save and end the run
/// early. Throws InputError for what the user can put right; Error when `max_skipped_in_a_row` steps
/// had a gradient that is not finite.
void pretrain(const core::Config& config, bool resume);

}  // namespace cohort::moe
