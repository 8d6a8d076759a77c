#include "rl/grpo.h"

#include <memory>
#include <optional>

#include "core/base/error.h"
#include "core/base/log.h"
#include "distributed/mesh.h"
#include "moe/training_run.h"
#include "rl/components.h"
#include "rl/grpo_evaluation.h"
#include "rl/grpo_samples.h"
#include "rl/grpo_step.h"
#include "rl/reference_model.h"
#include "rl/rollout.h"
#include "rl/run_origin.h"

namespace cohort::rl {
namespace {

using nlohmann::ordered_json;

void check(const core::Config& config, const distributed::Mesh& mesh) {
  const core::RlConfig& rl = config.rl;
  COHORT_CHECK_INPUT(rl.sampling.temperature > 0,
                     "rl.sampling.temperature={}: completions to learn from are sampled; want more "
                     "than 0",
                     rl.sampling.temperature);
  COHORT_CHECK_INPUT(rl.group_size >= 2,
                     "rl.group_size={}: an advantage is over others of its group; want at least 2",
                     rl.group_size);
  const int64_t unit = mesh.shape.dp * rl.mini_batches;
  COHORT_CHECK_INPUT(rl.prompts_per_step % unit == 0,
                     "rl.prompts_per_step={} is not a multiple of dp x rl.mini_batches = {} x {}",
                     rl.prompts_per_step,
                     mesh.shape.dp,
                     rl.mini_batches);
}

RunOrigin find(const core::Config& config, const distributed::Mesh& mesh, bool resume) {
  moe::check_steps(config);
  check(config, mesh);
  return find_origin(config, mesh, resume, "GRPO");
}

/// The held-out problems are the same for every run.seed.
constexpr uint64_t kEvaluationSeed = 1;

class GrpoRun {
 public:
  GrpoRun(const core::Config& config, bool resume)
      : config_(config),
        mesh_(distributed::make_mesh(config.mesh)),
        origin_(find(config, mesh_, resume)),
        tokenizer_(origin_.tokenizer(config.model)),
        task_(make_task(task_config(config.rl.task, config.run.seed))),
        rewards_(reward_configs(config.rl.rewards)),
        evaluation_(config, kEvaluationSeed),
        run_(config, "grpo", mesh_, origin_.files, origin_.weights()),
        generator_(run_.model(),
                   &tokenizer_,
                   mesh_.ep,
                   {config.rl.max_running, config.rl.cache_tokens, true}) {
    if (origin_.files.checkpoint)
      next_prompt_ = run_.resumed_state().value("next_prompt", int64_t{0});
    if (config.rl.beta > 0) make_reference();
    run_.add_to_checkpoints([this](distributed::CheckpointContent& content) {
      content.state["next_prompt"] = next_prompt_;
      if (reference_) reference_->add_to(content);
    });
    if (mesh_.shape.rank == 0) moe::write_run_files(config, {});
  }

  void run() {
    const core::RlConfig& rl = config_.rl;
    run_.describe(fmt::format("{} prompts x {} completions", rl.prompts_per_step, rl.group_size));
    if (!origin_.files.checkpoint && rl.eval_every > 0) evaluate_before();
    while (!run_.over()) {
      const double start = moe::seconds_now();
      const GeneratorCounters before = generator_.counters();
      const moe::StepOptions options = run_.next_options();
      const Rollout rollout = draw();
      const double drawn = moe::seconds_now();
      const GrpoStepReport report = learn(rollout, options);
      const double learned = moe::seconds_now();
      next_prompt_ = rollout.next_prompt;
      run_.finish_step(report.updates, static_cast<int64_t>(rollout.sums.tokens), learned - start);
      refresh_reference();
      log(rollout, report, options.lr, before, learned - drawn);
      run_.end_step();
    }
    run_.close();
  }

 private:
  void make_reference() {
    reference_.emplace(run_.model(), mesh_);
    const auto& checkpoint = origin_.files.checkpoint;
    if (!checkpoint) return;
    if (!reference_->load(distributed::CheckpointReader(*checkpoint)) && run_.log())
      spdlog::warn("{} has no reference model (rl.beta was 0): it is the model of step {}",
                   *checkpoint,
                   run_.progress().step);
  }

  void refresh_reference() {
    const int64_t every = config_.rl.reference_every;
    if (reference_ && every > 0 && run_.progress().step % every == 0)
      reference_->refresh(run_.model());
  }

  Rollout draw() {
    const core::RlConfig& rl = config_.rl;
    const RolloutOptions options{config_.run.seed,
                                 run_.progress().step + 1,
                                 next_prompt_,
                                 rl.prompts_per_step,
                                 rl.group_size,
                                 rl.refill_rounds,
                                 advantage_scale(rl.advantage_scale),
                                 config_.model.bos_token_id};
    return roll_out(options, *task_, tokenizer_, rewards_, *mesh_.dp, generate());
  }

  Generate generate() {
    return [this](const std::vector<GenerationRequest>& requests) {
      return generator_.generate(requests, config_.rl.sampling);
    };
  }

  GrpoStepReport learn(const Rollout& rollout, const moe::StepOptions& step) {
    const core::RlConfig& rl = config_.rl;
    std::vector<PolicySequence> sequences;
    for (const Group& group : rollout.groups)
      for (const Sample& sample : group.samples)
        sequences.push_back({group.prompt,
                             &sample.generated,
                             sample.advantage,
                             rl.truncated == "keep" || !sample.truncated()});
    GrpoStepOptions options;
    options.loss = {
        policy_loss_kind(rl.loss), rl.clip_low, rl.clip_high, rl.beta, rl.sampling.max_new_tokens};
    options.temperature = rl.sampling.temperature;
    options.group_size = rl.group_size;
    options.passes = rl.passes;
    options.mini_batches = rl.mini_batches;
    options.micro_batch = config_.train.micro_batch;
    options.recompute = config_.train.recompute == "layer";
    options.step = step;
    return grpo_step(run_.model(),
                     run_.optimizer(),
                     mesh_,
                     reference_ ? &reference_->model() : nullptr,
                     sequences,
                     options);
  }

  void log(const Rollout& rollout,
           const GrpoStepReport& report,
           double lr,
           const GeneratorCounters& before,
           double train_seconds) {
    ordered_json line{{"step", run_.progress().step}, {"loss", report.loss}};
    add_rollout(line, rollout);
    add_updates(line, report);
    add_times(line, rollout, before, train_seconds);
    line.update(run_.closing_metrics(lr, report.grad_norm, report.max_violation));
    const auto every = config_.rl.eval_every;
    const int64_t step = run_.progress().step;
    const bool evaluates = every > 0 && (run_.last_step() || step % every == 0);
    if (run_.log() && (step % config_.log.samples_every == 0 || run_.last_step() || evaluates))
      run_.log()->samples(step, sample_lines(rollout.groups, rewards_.labels()));
    if (evaluates) evaluate(line);
    run_.log_step(line, report.loads, evaluates);
  }

  void add_rollout(ordered_json& line, const Rollout& rollout) const {
    const RolloutSums& sums = rollout.sums;
    line["reward_mean"] = sums.reward / sums.completions;
    for (size_t i = 0; i < sums.components.size(); ++i)
      line["reward/" + rewards_.labels()[i]] = sums.components[i] / sums.completions;
    line["reward_failures"] = static_cast<int64_t>(sums.failures);
    line["pass_rate"] = sums.passed / sums.completions;
    line["completion_tokens_mean"] = sums.tokens / sums.completions;
    line["truncated_fraction"] = sums.truncated / sums.completions;
    line["entropy"] = sums.entropy / sums.tokens;
    line["degenerate_groups"] = sums.degenerate / sums.groups;
  }

  static void add_updates(ordered_json& line, const GrpoStepReport& report) {
    line["kl"] = report.kl;
    line["clip_fraction"] = report.clip_fraction;
    line["logp_drift_max"] = report.logp_drift_max;
    line["routing_mismatch"] = report.routing_compared == 0
                                   ? 0.0
                                   : static_cast<double>(report.routing_mismatched) /
                                         static_cast<double>(report.routing_compared);
    line["routing_mismatch_pairs"] = report.routing_mismatched;
  }

  /// The slowest rank's seconds: the others wait for it.
  void add_times(ordered_json& line,
                 const Rollout& rollout,
                 const GeneratorCounters& before,
                 double train_seconds) const {
    at::Tensor seconds =
        at::tensor({rollout.generate_seconds, rollout.reward_seconds, train_seconds}, at::kDouble);
    mesh_.dp->all_reduce(seconds, distributed::ReduceOp::kMax);
    at::Tensor hits = at::full(
        {1}, generator_.counters().prefix_hit_tokens - before.prefix_hit_tokens, at::kLong);
    mesh_.dp->all_reduce(hits);
    const double* second = seconds.const_data_ptr<double>();
    line["prefix_hit_tokens"] = hits.item<int64_t>();
    line["generate_tokens_per_second"] = rollout.sums.tokens / second[0];
    line["generate_seconds"] = second[0];
    line["reward_seconds"] = second[1];
    line["train_seconds"] = second[2];
  }

  void evaluate_before() {
    ordered_json line{{"step", 0}};
    evaluate(line);
    if (run_.log()) run_.log()->step(0, line);
  }

  void evaluate(ordered_json& line) {
    const double start = moe::seconds_now();
    const auto samples = evaluation_.run(tokenizer_, rewards_, *mesh_.dp, generate(), line);
    const double seconds = moe::seconds_now() - start;
    run_.add_wall_seconds(seconds);
    line["eval_seconds"] = seconds;
    if (run_.log()) run_.log()->samples(run_.progress().step, samples);
  }

  core::Config config_;
  distributed::Mesh mesh_;
  RunOrigin origin_;
  core::Tokenizer tokenizer_;
  std::unique_ptr<Task> task_;
  RewardSum rewards_;
  HeldOutEvaluation evaluation_;
  moe::TrainingRun run_;
  Generator generator_;
  std::optional<ReferenceModel> reference_;
  int64_t next_prompt_ = 0;
};

}  // namespace

void grpo(const core::Config& config, bool resume) { GrpoRun(config, resume).run(); }

}  // namespace cohort::rl
