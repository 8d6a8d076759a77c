// Where messages go: stderr, one line each, with the rank in front when there are several.
#pragma once
#include <spdlog/spdlog.h>

namespace cohort::core {

/// Sets the pattern ("rank 1: ..." when world > 1) and silences info on every rank but 0; warnings
/// and errors always print.
void setup_logging(int rank, int world_size);

}  // namespace cohort::core
