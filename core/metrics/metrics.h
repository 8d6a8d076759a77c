// What a run writes to be looked at: metrics.jsonl, TensorBoard events, one live line.
#pragma once
#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

namespace cohort::core {

/// Rank 0's log of a run in `dir`: metrics.jsonl, `tensorboard/events.out.tfevents.*`,
/// `experts.jsonl` (loads a layer), and the progress line on stderr.
class RunLog {
 public:
  /// resume_step >= 0: lines of later steps are cut from the .jsonl files, so that a resumed run
  /// leaves the same file as an uninterrupted one. -1: a new run.
  RunLog(const std::string& dir, int64_t total_steps, int64_t resume_step);
  ~RunLog();

  /// One step: scalars become one line of metrics.jsonl and TensorBoard scalars (keys with '/' keep
  /// them). Flushed before it returns.
  void step(int64_t step, const nlohmann::ordered_json& scalars);
  /// Loads of the routed experts of one step: {"model.layers.3": [int64 x E], ...} ->
  /// experts.jsonl.
  void expert_loads(int64_t step, const nlohmann::ordered_json& loads);
  /// The live line: rewritten in place on a terminal, a plain line every few seconds elsewhere.
  void progress(int64_t step, const nlohmann::ordered_json& scalars);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Writes `dir`/report.html: one file without network access, with curves and expert-load heatmaps.
/// Returns its path. Throws InputError when `dir` is not a run.
std::string write_report(const std::string& dir);

}  // namespace cohort::core
