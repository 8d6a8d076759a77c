// What pretraining, fine-tuning and GRPO have in common around their steps: the model and its
// optimizer, starting and going on, counting, the log, checkpoints, the end.
//
//   while (!run.over()) {
//     ... one step ...
//     run.finish_step(updates, tokens, seconds);
//     run.log_step(line, loads, important);
//     run.end_step();
//   }
//   run.close();
#pragma once
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>

#include "core/config/config.h"
#include "core/metrics/metrics.h"
#include "distributed/checkpoint.h"
#include "distributed/mesh.h"
#include "distributed/sharded_optimizer.h"
#include "moe/run_folder.h"
#include "moe/train_step.h"
#include "moe/transformer.h"

namespace cohort::moe {

/// Seconds of a clock that only goes forward.
double seconds_now();

at::ScalarType dtype_of(const std::string& precision);

/// Kind of a checkpoint that holds weights alone (`cohort convert`): any run may start from it.
inline constexpr const char* kWeightsOnly = "weights";

/// Fills the weights of a model that a run starts from. Collective.
using StartingWeights = std::function<void(Transformer&)>;

/// What goes on from step to step, and into a checkpoint.
struct Progress {
  int64_t step = 0;  ///< Steps done.
  int64_t tokens = 0;
  int64_t skipped = 0, skipped_in_a_row = 0;
  double wall_seconds = 0;
};

/// Collective in all but the getters.
class TrainingRun {
 public:
  /// `kind`: "pretrain", "sft" or "grpo"; a checkpoint of another kind is no place to go on from
  /// (InputError). `start` is called for a run that starts anew; without it the weights are drawn.
  TrainingRun(const core::Config& config,
              std::string kind,
              const distributed::Mesh& mesh,
              RunFolder files,
              const StartingWeights& start);

  const core::Config& config() const { return config_; }
  const distributed::Mesh& mesh() const { return mesh_; }
  Transformer& model() { return model_; }
  distributed::ShardedOptimizer& optimizer() { return optimizer_; }
  const Progress& progress() const { return progress_; }
  /// The state in the checkpoint that the run goes on from; null when it started anew.
  const nlohmann::json& resumed_state() const { return resumed_state_; }
  /// Rank 0's log, nullptr elsewhere.
  core::RunLog* log() { return log_ ? &*log_ : nullptr; }
  /// What more goes into a checkpoint than weights, optimizer and progress.
  void add_to_checkpoints(std::function<void(distributed::CheckpointContent&)> add) {
    add_to_checkpoint_ = std::move(add);
  }

  /// Sizes of the model and of the mesh, in one log line.
  void describe(const std::string& step_size) const;
  /// Whether all steps are done or a signal asked to stop.
  bool over() const { return stopped_ || progress_.step >= config_.train.steps; }
  bool last_step() const { return progress_.step == config_.train.steps; }
  /// Of the step to come.
  StepOptions next_options() const;

  /// Counts a step. Throws Error when max_skipped_in_a_row updates in a row were skipped.
  void finish_step(std::span<const distributed::OptimizerStepReport> updates,
                   int64_t tokens,
                   double seconds);
  void add_wall_seconds(double seconds) { progress_.wall_seconds += seconds; }
  /// lr, grad_norm, tokens, tokens_per_second, max_vio, skipped_steps, wall_seconds of the step
  /// just finished: the end of its line.
  nlohmann::ordered_json closing_metrics(double lr, double grad_norm, double max_vio) const;
  /// Writes the line if log.every, the last step or `important` wants it, and shows it.
  void log_step(const nlohmann::ordered_json& line,
                const std::vector<at::Tensor>& loads,
                bool important);
  /// Saves when that is due, and hears whether to stop.
  void end_step();
  /// Waits for the last checkpoint; throws Error when it could not be written.
  void close();

 private:
  int64_t total_steps() const;
  void count_skipped(const distributed::OptimizerStepReport& update);
  nlohmann::ordered_json loads_json(const std::vector<at::Tensor>& loads);
  bool anyone_wants_to_stop() const;
  void save();
  void resume(const std::string& folder);
  void start_from_weights(const distributed::CheckpointReader& reader, const std::string& folder);

  core::Config config_;
  std::string kind_;
  distributed::Mesh mesh_;
  RunFolder files_;
  Transformer model_;
  distributed::ShardedOptimizer optimizer_;
  distributed::CheckpointWriter writer_;
  std::optional<core::RunLog> log_;
  std::function<void(distributed::CheckpointContent&)> add_to_checkpoint_;
  nlohmann::json resumed_state_;
  Progress progress_;
  int64_t step_tokens_ = 0;
  double step_seconds_ = 0;
  bool stopped_ = false;
};

}  // namespace cohort::moe
