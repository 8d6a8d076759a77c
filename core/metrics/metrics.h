// What a run writes to be looked at: metrics.jsonl, TensorBoard events, one live line, one page.
#pragma once
#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace cohort::core {

/// Rank 0's log of a run in `dir`:
///
///   metrics.jsonl   one object a step, `step` first, then the scalars in the order given. A value
///                   that is not finite is written as null, so that every line stays JSON.
///   experts.jsonl   {"step": 7, "model.layers.3": [load of expert 0, 1, ...], ...}
///   samples.jsonl   one object a sampled completion, `step` first (RL; made by the first of them):
///                   {"step", "prompt", "completion", "reward", "rewards": {name: value},
///                   "advantage", "tokens", "truncated", "problem_id", "answer", "split"}
///   events.jsonl    {"step", "event", "text", "time"}: starts, resumes and what note() is told.
///                   A history: a resume cuts nothing from it.
///   tensorboard/    events.out.tfevents.*, a new file for each start; non-finite values survive.
///
/// Each write is one whole line or record, in the file before the call returns. A write that fails
/// (a full disk) is dropped whole, warned about once, and training goes on.
class RunLog {
 public:
  /// resume_step >= 0: the run goes on after that many steps; lines of later steps, and a last line
  /// torn by a kill, are cut from metrics.jsonl, experts.jsonl and samples.jsonl, so that a resumed
  /// run leaves the same lines as an uninterrupted one. -1: a new run; logs of an earlier one in
  /// `dir` are removed. Throws InputError when `dir` cannot be written.
  RunLog(const std::string& dir, int64_t total_steps, int64_t resume_step);
  /// Ends the live line with a newline.
  ~RunLog();

  /// One step: scalars become one line of metrics.jsonl and TensorBoard scalars of the same names
  /// (a
  /// '/' groups them there). Two keys are running totals over the whole run: `tokens` and
  /// `skipped_steps`; so is `wall_seconds`. A `step` among the scalars is ignored.
  void step(int64_t step, const nlohmann::ordered_json& scalars);
  /// Loads of the routed experts of one step, in tokens: {"model.layers.3": [int64 x E], ...}.
  void expert_loads(int64_t step, const nlohmann::ordered_json& loads);
  /// Completions of one step, one object a line, all of them in one write. A `step` in an object is
  /// ignored. Throws InputError when samples.jsonl cannot be made.
  void samples(int64_t step, const std::vector<nlohmann::ordered_json>& lines);
  /// Something that is no number: {"event": "skipped", "text": "model.layers.3...: not finite"}.
  void note(int64_t step, const std::string& event, const std::string& text);
  /// The live line: rewritten in place on a terminal, a plain line every few seconds elsewhere.
  /// What it shows is told in core/metrics/progress.h.
  void progress(int64_t step, const nlohmann::ordered_json& scalars);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Writes `out` (empty: `dir`/report.html): one file without network access, with curves and
/// expert-load heatmaps, and returns its path. A run that is still going, or has not logged a step
/// yet, gives the page of what there is. Throws InputError when `dir` is not a run or `out` cannot
/// be written.
std::string write_report(const std::string& dir, const std::string& out = "");

}  // namespace cohort::core
