#include "rl/sft.h"

#include <algorithm>

#include "core/base/error.h"
#include "core/base/log.h"
#include "distributed/mesh.h"
#include "moe/training_run.h"
#include "rl/run_origin.h"
#include "rl/sft_files.h"
#include "rl/sft_loss.h"
#include "rl/sft_rows.h"

namespace cohort::rl {
namespace {

using nlohmann::ordered_json;

RunOrigin find(const core::Config& config, const distributed::Mesh& mesh, bool resume) {
  const int64_t unit = config.train.micro_batch * mesh.shape.dp;
  COHORT_CHECK_INPUT(
      config.train.global_batch % unit == 0,
      "train.global_batch={} is not a multiple of train.micro_batch x dp = {} x {} = {}",
      config.train.global_batch,
      config.train.micro_batch,
      mesh.shape.dp,
      unit);
  COHORT_CHECK_INPUT(
      config.sft.distill.weight == 0 || mesh.device.is_cpu(),
      "sft.distill: learning from a teacher's likeliest tokens has kernels for the CPU "
      "only; want run.device=cpu, or sft.distill.weight=0");
  return find_origin(config, mesh, resume, "supervised fine-tuning", true);
}

SftFiles read(const core::Config& config,
              const core::Tokenizer& tokenizer,
              const std::string& folder) {
  SftFormat format;
  format.tokenizer = &tokenizer;
  format.bos_token_id = config.model.bos_token_id;
  format.eos_token_id = config.model.eos_token_id;
  format.conversation = folder_conversation(folder);
  format.vocab_size = config.model.vocab_size;
  format.teacher = config.sft.distill.weight > 0;
  if (format.teacher) format.tokenizer_xxh3 = tokenizer_xxh3(tokenizer);
  return read_sft_files(config.data, format);
}

/// With the steps that the epochs are.
core::Config resolved(core::Config config, SftRows& rows) {
  if (config.train.epochs == 0) return config;
  const int64_t count = rows.num_rows(config.train.epochs), batch = config.train.global_batch;
  config.train.steps = (count + batch - 1) / batch;
  config.train.epochs = 0;
  return config;
}

class SftRun {
 public:
  SftRun(const core::Config& config, bool resume)
      : mesh_(distributed::make_mesh(config.mesh)),
        origin_(find(config, mesh_, resume)),
        tokenizer_(origin_.tokenizer(config.model)),
        files_(read(config, tokenizer_, origin_.folder)),
        rows_(files_.train, files_.weights, config.data.seq_len, config.run.seed),
        held_out_(pack_rows(files_.validation, config.data.seq_len)),
        config_(resolved(config, rows_)),
        run_(config_, "sft", mesh_, origin_.files, origin_.weights()) {
    if (origin_.files.checkpoint) resume_counts();
    run_.add_to_checkpoints([this](distributed::CheckpointContent& content) {
      content.state["trained_tokens"] = trained_tokens_;
      content.state["examples"] = examples_;
      content.state["data"] = files_.fingerprint();
    });
    if (mesh_.shape.rank != 0) return;
    warn_of_left_out(files_, config_.data.seq_len);
    moe::write_run_records(config_, sft_data_card(files_, config_.data));
  }

  void run() {
    const int64_t G = config_.train.global_batch;
    run_.describe(fmt::format("{} rows of up to {} tokens", G, config_.data.seq_len));
    while (!run_.over()) {
      const double start = moe::seconds_now();
      const auto rows = rows_.rows(run_.progress().step * G, G);
      const RowCounts counts = count_rows(files_.train, rows, depths());
      const moe::StepOptions options = run_.next_options();
      const moe::StepReport report = learn(rows, counts, options);
      run_.finish_step({&report.update, 1}, counts.tokens, moe::seconds_now() - start);
      trained_tokens_ += counts.targets[0];
      examples_ += counts.examples;
      log(report, counts, options.lr);
      run_.end_step();
    }
    run_.close();
  }

 private:
  int64_t depths() const {
    return config_.train.mtp_loss_weight > 0 ? config_.model.num_nextn_predict_layers : 0;
  }

  void resume_counts() {
    const nlohmann::json& state = run_.resumed_state();
    trained_tokens_ = state.at("trained_tokens");
    examples_ = state.at("examples");
    if (mesh_.shape.rank == 0 && state.at("data") != files_.fingerprint())
      spdlog::warn("resumes with other examples than those that {} was trained on",
                   *origin_.files.checkpoint);
  }

  /// This rank's share of the global batch, in micro-batches.
  moe::StepReport learn(std::span<const PackedRow> rows,
                        const RowCounts& counts,
                        const moe::StepOptions& options) {
    const core::TrainConfig& train = config_.train;
    const int64_t per_rank = train.global_batch / mesh_.shape.dp;
    const auto mine = rows.subspan(mesh_.shape.dp_rank * per_rank, per_rank);
    const auto loss = [&](int64_t i) {
      const auto part = mine.subspan(i * train.micro_batch, train.micro_batch);
      return sft_loss(run_.model(),
                      make_sft_batch(files_.train, part, depths()),
                      counts.targets,
                      train.mtp_loss_weight,
                      train.recompute == "layer",
                      config_.sft.distill,
                      counts.teacher);
    };
    return moe::train_step(
        run_.model(), run_.optimizer(), mesh_, per_rank / train.micro_batch, loss, options);
  }

  void log(const moe::StepReport& report, const RowCounts& counts, double lr) {
    ordered_json line{{"step", run_.progress().step}, {"loss", report.loss}};
    for (const auto& [name, value] : report.parts) line[name] = value;
    line["trained_tokens"] = trained_tokens_;
    line["epoch"] = static_cast<double>(examples_) / static_cast<double>(rows_.epoch_size());
    line["packing_efficiency"] =
        static_cast<double>(counts.tokens) /
        static_cast<double>(config_.train.global_batch * config_.data.seq_len);
    line["examples_left_out"] = files_.left_out();
    line.update(run_.closing_metrics(lr, report.update.grad_norm, report.max_violation));
    add_validation(line);
    run_.log_step(line, report.loads, line.contains("val_loss"));
  }

  void add_validation(ordered_json& line) {
    if (held_out_.empty()) return;
    const auto every = config_.log.validate_every;
    if (!run_.last_step() && (every == 0 || run_.progress().step % every != 0)) return;
    const double start = moe::seconds_now();
    line["val_loss"] = validation_loss();
    run_.add_wall_seconds(moe::seconds_now() - start);
  }

  /// Every rank makes as many passes, because experts are shared: one without rows left repeats the
  /// first and does not count it.
  double validation_loss() {
    const int64_t limit = config_.log.validate_batches * config_.train.global_batch;
    const auto all = static_cast<int64_t>(held_out_.size());
    const int64_t count = limit > 0 ? std::min(limit, all) : all;
    const int64_t micro_batch = config_.train.micro_batch;
    const std::span<const PackedRow> rows(held_out_);
    double nats = 0;
    for (int64_t round = 0; round < count; round += micro_batch * mesh_.shape.dp) {
      const int64_t first = round + micro_batch * mesh_.shape.dp_rank;
      const int64_t mine = std::clamp<int64_t>(count - first, 0, micro_batch);
      const auto part = mine > 0 ? rows.subspan(first, mine) : rows.first(1);
      const double sum = sft_nats(run_.model(), make_sft_batch(files_.validation, part, 0));
      if (mine > 0) nats += sum;
    }
    at::Tensor total = at::full({1}, nats, at::kDouble);
    mesh_.dp->all_reduce(total);
    const RowCounts counts = count_rows(files_.validation, rows.first(count), 0);
    return total.item<double>() / static_cast<double>(counts.targets[0]);
  }

  distributed::Mesh mesh_;
  RunOrigin origin_;
  core::Tokenizer tokenizer_;
  SftFiles files_;
  SftRows rows_;
  std::vector<PackedRow> held_out_;
  core::Config config_;
  moe::TrainingRun run_;
  int64_t trained_tokens_ = 0, examples_ = 0;
};

}  // namespace

void sft(const core::Config& config, bool resume) { SftRun(config, resume).run(); }

}  // namespace cohort::rl
