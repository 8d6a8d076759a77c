#include "moe/training_run.h"

#include <fmt/ranges.h>

#include <chrono>

#include "core/base/error.h"
#include "core/base/log.h"
#include "core/config/hf_config.h"
#include "core/config/parse.h"
#include "core/optim/schedule.h"
#include "distributed/launch.h"
#include "moe/model_state.h"

namespace cohort::moe {
namespace {

using nlohmann::ordered_json;

/// With its weights, so that the optimizer's masters start from them.
Transformer make_model(const core::Config& config,
                       const distributed::Mesh& mesh,
                       const RunFolder& files,
                       const StartingWeights& start) {
  Transformer model(
      config.model, mesh.ep, config.run.seed, dtype_of(config.train.precision), mesh.device);
  if (start && !files.checkpoint) start(model);
  return model;
}

}  // namespace

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

at::ScalarType dtype_of(const std::string& precision) {
  return precision == "bf16" ? at::kBFloat16 : precision == "fp64" ? at::kDouble : at::kFloat;
}

TrainingRun::TrainingRun(const core::Config& config,
                         std::string kind,
                         const distributed::Mesh& mesh,
                         RunFolder files,
                         const StartingWeights& start)
    : config_(config),
      kind_(std::move(kind)),
      mesh_(mesh),
      files_(std::move(files)),
      model_(make_model(config, mesh, files_, start)),
      optimizer_(model_.parameters(), mesh_, config.optimizer),
      writer_(
          config.run.dir + "/checkpoints", mesh_, config.checkpoint.keep, config.checkpoint.async) {
  if (files_.checkpoint) resume(*files_.checkpoint);
  if (mesh_.shape.rank == 0)
    log_.emplace(config.run.dir, config.train.steps, files_.checkpoint ? progress_.step : -1);
  distributed::catch_stop_signals();
}

int64_t TrainingRun::total_steps() const {
  return config_.schedule.total_steps > 0 ? config_.schedule.total_steps : config_.train.steps;
}

void TrainingRun::describe(const std::string& step_size) const {
  int64_t local = 0;
  for (const auto& parameter : model_.parameters()) local += parameter.value.numel();
  const auto& s = mesh_.shape;
  spdlog::info("{} parameters on this rank; {} ranks: dp {}, ep {}; steps {} to {}, {} each",
               local,
               s.world,
               s.dp,
               s.ep,
               progress_.step + 1,
               config_.train.steps,
               step_size);
}

StepOptions TrainingRun::next_options() const {
  return {core::learning_rate(
              config_.schedule, config_.optimizer.lr, progress_.step + 1, total_steps()),
          config_.router.bias_update_speed};
}

void TrainingRun::finish_step(std::span<const distributed::OptimizerStepReport> updates,
                              int64_t tokens,
                              double seconds) {
  // A save has the time of one step to be written. To log this step before it is committed would
  // let a crash cost more than save_every steps.
  const double start = seconds_now();
  writer_.finish();
  ++progress_.step;
  progress_.tokens += tokens;
  for (const auto& update : updates) count_skipped(update);
  step_tokens_ = tokens;
  step_seconds_ = seconds + seconds_now() - start;
  progress_.wall_seconds += step_seconds_;
}

void TrainingRun::count_skipped(const distributed::OptimizerStepReport& update) {
  if (!update.skipped) {
    progress_.skipped_in_a_row = 0;
    return;
  }
  ++progress_.skipped;
  ++progress_.skipped_in_a_row;
  const std::string where = fmt::format("{}", fmt::join(update.non_finite, ", "));
  if (log_) {
    spdlog::warn("step {} skipped: the gradient is not finite in {}", progress_.step, where);
    log_->note(progress_.step, "skipped", where);
  }
  COHORT_CHECK(progress_.skipped_in_a_row < config_.train.max_skipped_in_a_row,
               "{} steps in a row had a gradient that is not finite, last in {}; the newest "
               "checkpoint is from before. Lower optimizer.lr or look at the data of these steps",
               progress_.skipped_in_a_row,
               where);
}

ordered_json TrainingRun::closing_metrics(double lr, double grad_norm, double max_vio) const {
  return {{"lr", lr},
          {"grad_norm", grad_norm},
          {"tokens", progress_.tokens},
          {"tokens_per_second", static_cast<double>(step_tokens_) / step_seconds_},
          {"max_vio", max_vio},
          {"skipped_steps", progress_.skipped},
          {"wall_seconds", progress_.wall_seconds}};
}

void TrainingRun::log_step(const ordered_json& line,
                           const std::vector<at::Tensor>& loads,
                           bool important) {
  if (!log_) return;
  if (progress_.step % config_.log.every == 0 || last_step() || important) {
    log_->step(progress_.step, line);
    if (!loads.empty()) log_->expert_loads(progress_.step, loads_json(loads));
  }
  log_->progress(progress_.step, line);
}

ordered_json TrainingRun::loads_json(const std::vector<at::Tensor>& loads) {
  ordered_json out = ordered_json::object();
  const auto layers = model_.moe_layers();
  for (size_t i = 0; i < loads.size(); ++i) {
    const std::string& prefix = layers[i]->prefix();  // model.layers.3.mlp.
    const int64_t* load = loads[i].const_data_ptr<int64_t>();
    out[prefix.substr(0, prefix.rfind(".mlp"))] =
        std::vector<int64_t>(load, load + loads[i].numel());
  }
  return out;
}

bool TrainingRun::anyone_wants_to_stop() const {
  at::Tensor stop = at::full({1}, distributed::stop_requested() ? 1 : 0, at::kLong);
  mesh_.world->all_reduce(stop, distributed::ReduceOp::kMax);
  return stop.item<int64_t>() != 0;
}

void TrainingRun::end_step() {
  stopped_ = anyone_wants_to_stop();
  const auto every = config_.checkpoint.save_every;
  if (stopped_ || last_step() || (every > 0 && progress_.step % every == 0)) save();
}

void TrainingRun::close() {
  const bool saved = writer_.finish();
  if (stopped_)
    spdlog::info("stopped by a signal after step {}; go on with --resume", progress_.step);
  COHORT_CHECK(saved, "the last checkpoint could not be written; the reason stands above");
}

void TrainingRun::save() {
  auto content = checkpoint_content(model_, optimizer_, mesh_);
  content.state = {
      {"kind", kind_},
      {"step", progress_.step},
      {"tokens", progress_.tokens},
      {"skipped_steps", progress_.skipped},
      {"skipped_in_a_row", progress_.skipped_in_a_row},
      {"wall_seconds", progress_.wall_seconds},
      {"num_updates", optimizer_.num_updates()},
      {"mesh", {{"world", mesh_.shape.world}, {"dp", mesh_.shape.dp}, {"ep", mesh_.shape.ep}}},
      {"config", core::to_yaml(config_)}};
  content.files.emplace_back("config.json", core::model_config_to_hf(config_.model).dump(2) + "\n");
  if (!files_.tokenizer_json.empty())
    content.files.emplace_back("tokenizer.json", files_.tokenizer_json);
  for (const auto& file : files_.carried) content.files.push_back(file);
  if (add_to_checkpoint_) add_to_checkpoint_(content);
  writer_.save(progress_.step, std::move(content));
}

void TrainingRun::resume(const std::string& folder) {
  const distributed::CheckpointReader reader(folder);
  const auto& state = reader.state();
  const std::string kind = state.value("kind", "pretrain");  // not written in the first version
  if (kind == kWeightsOnly) return start_from_weights(reader, folder);
  COHORT_CHECK_INPUT(
      kind == kind_,
      "{} is of `cohort {}`: go on with that, or start a run of its own from it with "
      "run.model={} and another run.dir",
      folder,
      kind,
      folder);
  check_resumable(config_, state.at("config").get<std::string>(), folder);
  load_checkpoint(reader, model_, optimizer_);
  optimizer_.set_num_updates(state.at("num_updates"));
  progress_ = {state.at("step"),
               state.at("tokens"),
               state.at("skipped_steps"),
               state.at("skipped_in_a_row"),
               state.at("wall_seconds")};
  resumed_state_ = state;
  if (mesh_.shape.rank == 0) spdlog::info("goes on from {}", folder);
}

void TrainingRun::start_from_weights(const distributed::CheckpointReader& reader,
                                     const std::string& folder) {
  check_resumable(config_, reader.state().at("config").get<std::string>(), folder, false);
  load_checkpoint(reader, model_, optimizer_, false);
  resumed_state_ = reader.state();
  if (mesh_.shape.rank == 0) spdlog::info("starts from the weights of {}", folder);
}

}  // namespace cohort::moe
