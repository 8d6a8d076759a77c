#include "moe/pretrain.h"

#include <chrono>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>

#include "core/base/error.h"
#include "core/base/log.h"
#include "core/config/hf_config.h"
#include "core/config/parse.h"
#include "core/data/indexed_dataset.h"
#include "core/data/loader.h"
#include "core/metrics/metrics.h"
#include "core/optim/schedule.h"
#include "distributed/checkpoint.h"
#include "distributed/launch.h"
#include "distributed/mesh.h"
#include "distributed/sharded_optimizer.h"
#include "moe/model_state.h"
#include "moe/pretrain_loss.h"
#include "moe/run_folder.h"
#include "moe/train_step.h"
#include "moe/validate.h"

namespace cohort::moe {
namespace {

using nlohmann::ordered_json;

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

at::ScalarType dtype_of(const std::string& precision) {
  return precision == "bf16" ? at::kBFloat16 : precision == "fp64" ? at::kDouble : at::kFloat;
}

/// What goes on from step to step, and into a checkpoint.
struct Progress {
  int64_t step = 0;  ///< Steps done.
  int64_t tokens = 0;
  int64_t skipped = 0, skipped_in_a_row = 0;
  double wall_seconds = 0;
};

class PretrainRun {
 public:
  PretrainRun(const core::Config& config, bool resume)
      : config_(config),
        mesh_(distributed::make_mesh(config.mesh)),
        files_(open_run_folder(config, mesh_, resume)),
        sampler_(config.data, config.run.seed, config.model.vocab_size),
        model_(config.model, mesh_.ep, config.run.seed, dtype_of(config.train.precision)),
        optimizer_(model_.parameters(), mesh_, config.optimizer),
        writer_(config.run.dir + "/checkpoints", mesh_, config.checkpoint.keep, config.checkpoint.async) {
    check_batch();
    if (!config.data.validation.empty())
      validation_.emplace(config.data.validation, config.data.seq_len, config.model.vocab_size);
    if (files_.checkpoint) load(*files_.checkpoint);
    if (mesh_.shape.rank == 0) {
      write_run_files(config, sampler_.sources());
      log_.emplace(config.run.dir, config.train.steps, files_.checkpoint ? progress_.step : -1);
    }
  }

  void run() {
    distributed::catch_stop_signals();
    describe();
    bool stopped = false;
    while (progress_.step < config_.train.steps && !stopped) {
      const double start = now();
      const auto micro_batches = next_micro_batches();
      const int64_t step = progress_.step + 1;
      const StepOptions options{
          core::learning_rate(
              config_.schedule, config_.optimizer.lr, step, total_steps()),
          config_.router.bias_update_speed};
      const auto loss =
          pretrain_loss(micro_batches, config_.model, config_.router, config_.train, mesh_);
      const StepReport report =
          train_step(model_, optimizer_, mesh_, micro_batches, loss, options);
      // A save has the time of one step to be written. To log this step before it is committed would
      // let a crash cost more than save_every steps.
      writer_.finish();
      finish_step(report, options.lr, start);
      stopped = anyone_wants_to_stop();
      const auto every = config_.checkpoint.save_every;
      if (stopped || step == config_.train.steps || (every > 0 && step % every == 0)) save();
    }
    const bool saved = writer_.finish();
    if (stopped) spdlog::info("stopped by a signal after step {}; go on with --resume", progress_.step);
    COHORT_CHECK(saved, "the last checkpoint could not be written; the reason stands above");
  }

 private:
  void check_batch() const {
    const int64_t unit = config_.train.micro_batch * mesh_.shape.dp;
    COHORT_CHECK_INPUT(
        config_.train.global_batch % unit == 0,
        "train.global_batch={} is not a multiple of train.micro_batch x dp = {} x {} = {}",
        config_.train.global_batch,
        config_.train.micro_batch,
        mesh_.shape.dp,
        unit);
  }

  int64_t total_steps() const {
    return config_.schedule.total_steps > 0 ? config_.schedule.total_steps : config_.train.steps;
  }

  void describe() const {
    int64_t local = 0;
    for (const auto& parameter : model_.parameters()) local += parameter.value.numel();
    const auto& s = mesh_.shape;
    spdlog::info("{} parameters on this rank; {} ranks: dp {}, ep {}; steps {} to {}, {} tokens each",
                 local,
                 s.world,
                 s.dp,
                 s.ep,
                 progress_.step + 1,
                 config_.train.steps,
                 config_.train.global_batch * config_.data.seq_len);
  }

  /// This rank's rows of the next global batch.
  std::vector<core::Batch> next_micro_batches() const {
    const int64_t per_rank = config_.train.global_batch / mesh_.shape.dp;
    const int64_t first =
        progress_.step * config_.train.global_batch + mesh_.shape.dp_rank * per_rank;
    std::vector<core::Batch> batches;
    for (int64_t i = 0; i < per_rank; i += config_.train.micro_batch)
      batches.push_back(sampler_.rows(first + i, config_.train.micro_batch));
    return batches;
  }

  void finish_step(const StepReport& report, double lr, double start) {
    ++progress_.step;
    const int64_t tokens = config_.train.global_batch * config_.data.seq_len;
    progress_.tokens += tokens;
    count_skipped(report);
    const double seconds = now() - start;
    progress_.wall_seconds += seconds;
    ordered_json line{{"step", progress_.step}, {"loss", report.loss}};
    for (const auto& [name, value] : report.parts) line[name] = value;
    line.update({{"lr", lr},
                 {"grad_norm", report.update.grad_norm},
                 {"tokens", progress_.tokens},
                 {"tokens_per_second", static_cast<double>(tokens) / seconds},
                 {"max_vio", report.max_violation},
                 {"skipped_steps", progress_.skipped},
                 {"wall_seconds", progress_.wall_seconds}});
    add_validation(line);
    if (!log_) return;
    const bool last = progress_.step == config_.train.steps;
    if (progress_.step % config_.log.every == 0 || last || line.contains("val_loss")) {
      log_->step(progress_.step, line);
      log_->expert_loads(progress_.step, loads_json(report));
    }
    log_->progress(progress_.step, line);
  }

  void count_skipped(const StepReport& report) {
    if (!report.update.skipped) {
      progress_.skipped_in_a_row = 0;
      return;
    }
    ++progress_.skipped;
    ++progress_.skipped_in_a_row;
    const std::string where = fmt::format("{}", fmt::join(report.update.non_finite, ", "));
    if (mesh_.shape.rank == 0)
      spdlog::warn("step {} skipped: the gradient is not finite in {}", progress_.step, where);
    COHORT_CHECK(progress_.skipped_in_a_row < config_.train.max_skipped_in_a_row,
                 "{} steps in a row had a gradient that is not finite, last in {}; the newest "
                 "checkpoint is from before. Lower optimizer.lr or look at the data of these steps",
                 progress_.skipped_in_a_row,
                 where);
  }

  void add_validation(ordered_json& line) {
    if (!validation_) return;
    const auto every = config_.log.validate_every;
    if (progress_.step != config_.train.steps && (every == 0 || progress_.step % every != 0)) return;
    const double start = now();
    const Validation result = validate(model_,
                                       *validation_,
                                       config_.train.micro_batch,
                                       config_.log.validate_batches * config_.train.global_batch,
                                       mesh_);
    progress_.wall_seconds += now() - start;
    line["val_loss"] = result.loss;
    if (result.bits_per_byte > 0) line["val_bits_per_byte"] = result.bits_per_byte;
  }

  ordered_json loads_json(const StepReport& report) {
    ordered_json loads = ordered_json::object();
    const auto layers = model_.moe_layers();
    for (size_t i = 0; i < report.loads.size(); ++i) {
      const std::string& prefix = layers[i]->prefix();  // model.layers.3.mlp.
      const int64_t* load = report.loads[i].const_data_ptr<int64_t>();
      loads[prefix.substr(0, prefix.rfind(".mlp"))] =
          std::vector<int64_t>(load, load + report.loads[i].numel());
    }
    return loads;
  }

  bool anyone_wants_to_stop() const {
    at::Tensor stop = at::full({1}, distributed::stop_requested() ? 1 : 0, at::kLong);
    mesh_.world->all_reduce(stop, distributed::ReduceOp::kMax);
    return stop.item<int64_t>() != 0;
  }

  void save() {
    auto content = checkpoint_content(model_, optimizer_, mesh_);
    content.state = {{"step", progress_.step},
                     {"tokens", progress_.tokens},
                     {"skipped_steps", progress_.skipped},
                     {"skipped_in_a_row", progress_.skipped_in_a_row},
                     {"wall_seconds", progress_.wall_seconds},
                     {"num_updates", optimizer_.num_updates()},
                     {"mesh",
                      {{"world", mesh_.shape.world}, {"dp", mesh_.shape.dp}, {"ep", mesh_.shape.ep}}},
                     {"config", core::to_yaml(config_)}};
    content.files.emplace_back("config.json", core::model_config_to_hf(config_.model).dump(2) + "\n");
    if (!files_.tokenizer_json.empty()) content.files.emplace_back("tokenizer.json", files_.tokenizer_json);
    writer_.save(progress_.step, std::move(content));
  }

  void load(const std::string& folder) {
    const distributed::CheckpointReader reader(folder);
    const auto& state = reader.state();
    check_resumable(config_, state.at("config").get<std::string>(), folder);
    load_checkpoint(reader, model_, optimizer_);
    optimizer_.set_num_updates(state.at("num_updates"));
    progress_ = {state.at("step"),
                 state.at("tokens"),
                 state.at("skipped_steps"),
                 state.at("skipped_in_a_row"),
                 state.at("wall_seconds")};
    if (mesh_.shape.rank == 0) spdlog::info("goes on from {}", folder);
  }

  core::Config config_;
  distributed::Mesh mesh_;
  RunFolder files_;
  core::TrainSampler sampler_;
  Transformer model_;
  distributed::ShardedOptimizer optimizer_;
  distributed::CheckpointWriter writer_;
  std::optional<core::ValidationSet> validation_;
  std::optional<core::RunLog> log_;
  Progress progress_;
};

}  // namespace

void pretrain(const core::Config& config, bool resume) { PretrainRun(config, resume).run(); }

}  // namespace cohort::moe
