#include "moe/pretrain.h"

#include <optional>

#include "core/base/error.h"
#include "core/data/loader.h"
#include "moe/pretrain_loss.h"
#include "moe/run_folder.h"
#include "moe/train_step.h"
#include "moe/validate.h"

namespace cohort::moe {
namespace {

using nlohmann::ordered_json;

RunFolder open_folder(const core::Config& config, const distributed::Mesh& mesh, bool resume) {
  check_steps(config);
  const int64_t unit = config.train.micro_batch * mesh.shape.dp;
  COHORT_CHECK_INPUT(
      config.train.global_batch % unit == 0,
      "train.global_batch={} is not a multiple of train.micro_batch x dp = {} x {} = {}",
      config.train.global_batch,
      config.train.micro_batch,
      mesh.shape.dp,
      unit);
  RunFolder folder = open_run_folder(config, mesh, resume);
  folder.tokenizer_json = carried_tokenizer(config.data);
  return folder;
}

std::optional<core::ValidationSet> validation_set(const core::Config& config) {
  if (config.data.validation.empty()) return std::nullopt;
  return core::ValidationSet(config.data.validation, config.data.seq_len, config.model.vocab_size);
}

class PretrainRun {
 public:
  PretrainRun(const core::Config& config, bool resume, const StartingWeights& start)
      : config_(config),
        mesh_(distributed::make_mesh(config.mesh)),
        files_(open_folder(config, mesh_, resume)),
        sampler_(config.data, config.run.seed, config.model.vocab_size),
        validation_(validation_set(config)),
        run_(config, "pretrain", mesh_, files_, start) {
    if (mesh_.shape.rank == 0) write_run_files(config, sampler_.sources());
  }

  void run() {
    run_.describe(fmt::format("{} tokens", step_tokens()));
    while (!run_.over()) {
      const double start = seconds_now();
      const auto micro_batches = next_micro_batches();
      const StepOptions options = run_.next_options();
      const auto loss =
          pretrain_loss(micro_batches, config_.model, config_.router, config_.train, mesh_);
      const StepReport report =
          train_step(run_.model(), run_.optimizer(), mesh_, micro_batches, loss, options);
      run_.finish_step({&report.update, 1}, step_tokens(), seconds_now() - start);
      log(report, options.lr);
      run_.end_step();
    }
    run_.close();
  }

 private:
  int64_t step_tokens() const { return config_.train.global_batch * config_.data.seq_len; }

  /// This rank's rows of the next global batch.
  std::vector<core::Batch> next_micro_batches() const {
    const int64_t per_rank = config_.train.global_batch / mesh_.shape.dp;
    const int64_t first =
        run_.progress().step * config_.train.global_batch + mesh_.shape.dp_rank * per_rank;
    std::vector<core::Batch> batches;
    for (int64_t i = 0; i < per_rank; i += config_.train.micro_batch)
      batches.push_back(sampler_.rows(first + i, config_.train.micro_batch));
    return batches;
  }

  void log(const StepReport& report, double lr) {
    ordered_json line{{"step", run_.progress().step}, {"loss", report.loss}};
    for (const auto& [name, value] : report.parts) line[name] = value;
    line.update(run_.closing_metrics(lr, report.update.grad_norm, report.max_violation));
    add_validation(line);
    run_.log_step(line, report.loads, line.contains("val_loss"));
  }

  void add_validation(ordered_json& line) {
    if (!validation_) return;
    const auto every = config_.log.validate_every;
    if (!run_.last_step() && (every == 0 || run_.progress().step % every != 0)) return;
    const double start = seconds_now();
    const Validation result = validate(run_.model(),
                                       *validation_,
                                       config_.train.micro_batch,
                                       config_.log.validate_batches * config_.train.global_batch,
                                       mesh_);
    run_.add_wall_seconds(seconds_now() - start);
    line["val_loss"] = result.loss;
    if (result.bits_per_byte > 0) line["val_bits_per_byte"] = result.bits_per_byte;
  }

  core::Config config_;
  distributed::Mesh mesh_;
  RunFolder files_;
  core::TrainSampler sampler_;
  std::optional<core::ValidationSet> validation_;
  TrainingRun run_;
};

}  // namespace

void pretrain(const core::Config& config, bool resume, const StartingWeights& start) {
  PretrainRun(config, resume, start).run();
}

}  // namespace cohort::moe
