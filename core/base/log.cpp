#include "core/base/log.h"

#include <spdlog/sinks/stdout_color_sinks.h>

namespace cohort::core {

void setup_logging(int rank, int world_size) {
  auto logger = spdlog::get("cohort");
  if (!logger) logger = spdlog::stderr_color_mt("cohort");
  logger->set_pattern(world_size > 1 ? fmt::format("%^%l%$ rank {}: %v", rank) : "%^%l%$: %v");
  logger->set_level(rank == 0 ? spdlog::level::info : spdlog::level::warn);
  spdlog::set_default_logger(logger);
}

}  // namespace cohort::core
