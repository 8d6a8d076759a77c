// cohort convert --to hf|cohort SRC DST: between checkpoints and Hugging Face folders.
#include <memory>

#include "cli/commands.h"
#include "cli/model_summary.h"
#include "core/base/error.h"
#include "core/base/log.h"
#include "distributed/launch.h"
#include "rl/convert.h"

namespace cohort::cli {
namespace {

struct Arguments {
  std::string to, source, destination, dtype, shard_size = "5GB";
};

/// Bytes of "5GB", "200MB", "1000kB", "1000000".
int64_t parse_size(const std::string& text) {
  size_t used = 0;
  double value = 0;
  try {
    value = std::stod(text, &used);
  } catch (const std::exception&) {
    used = 0;
  }
  const std::string unit = text.substr(used);
  double factor = 0;
  for (const auto& [name, size] : {std::pair{"", 1.0},
                                   {"B", 1.0},
                                   {"kB", 1e3},
                                   {"KB", 1e3},
                                   {"MB", 1e6},
                                   {"GB", 1e9},
                                   {"TB", 1e12}})
    if (unit == name) factor = size;
  COHORT_CHECK_INPUT(used > 0 && factor > 0 && value * factor >= 1 && value * factor < 1e18,
                     "--shard-size: '{}' is no size; want one as in 5GB or 200MB",
                     text);
  return static_cast<int64_t>(value * factor);
}

int run(const Arguments& arguments) {
  core::setup_logging(distributed::world_rank(), distributed::world_size());
  COHORT_CHECK_INPUT(distributed::world_size() == 1,
                     "convert: works alone; want it without mpirun (it was started on {} ranks)",
                     distributed::world_size());
  rl::ConvertOptions options;
  if (arguments.to == "cohort") options.to = rl::ConvertOptions::To::kCheckpoint;
  if (!arguments.dtype.empty())
    options.dtype = arguments.dtype == "bf16" ? at::kBFloat16 : at::kFloat;
  options.shard_bytes = parse_size(arguments.shard_size);
  const auto report = rl::convert_model(arguments.source, arguments.destination, options);
  fmt::print("{}: {} tensors, {} in {} file{}\n",
             arguments.destination,
             report.tensors,
             readable_bytes(report.bytes),
             report.files,
             report.files == 1 ? "" : "s");
  return 0;
}

}  // namespace

Run add_convert(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  app.add_option("--to",
                 arguments->to,
                 "hf: a folder that transformers opens; cohort: a checkpoint without optimizer "
                 "state, for --model, or for --resume as RUN/checkpoints/step-00000000")
      ->required()
      ->check(CLI::IsMember({"hf", "cohort"}));
  app.add_option("source",
                 arguments->source,
                 "A checkpoint, a run (its newest good checkpoint) or "
                 "a Hugging Face folder")
      ->required();
  app.add_option("destination", arguments->destination, "A folder that is new or empty")
      ->required();
  app.add_option("--dtype",
                 arguments->dtype,
                 "bf16 or fp32 (of a bf16 run its fp32 masters) [each tensor's own; F8_E4M3 "
                 "becomes bf16]")
      ->check(CLI::IsMember({"bf16", "fp32"}));
  app.add_option("--shard-size", arguments->shard_size, "Most data in one file")
      ->capture_default_str();
  return [arguments] { return run(*arguments); };
}

}  // namespace cohort::cli
