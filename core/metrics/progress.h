// The live line of a run, on stderr.
//
//   step 120/1000  loss 3.412  12.3k tok/s  MaxVio 0.42  grad 1.03  lr 9.8e-04  ETA 4m12s
//   step 120/300  reward 0.912  pass 81.3%  held-out 79.9%  length 41  3.90k gen tok/s  ETA 14m02s
//
// On a terminal it is rewritten in place, and the line of a validation or evaluation step stays. In
// a log file (or with TERM=dumb) it is a plain line every few seconds, and on each such step.
#pragma once
#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

namespace cohort::core {

/// The line of one step. Reads `loss, val_loss, val_bits_per_byte, tokens_per_second, max_vio,
/// grad_norm, lr, skipped_steps` of `scalars`, and of an RL step, in place of the loss,
/// `reward_mean, pass_rate, eval_pass_at_1, completion_tokens_mean, generate_tokens_per_second`;
/// what is missing (or 0 skipped steps) is left out.
/// eta_seconds < 0: not known yet, left out. columns > 0: the line is at most that long: spaces,
/// then whole fields, least telling first, are dropped until it fits.
std::string progress_line(int64_t step,
                          int64_t total_steps,
                          const nlohmann::ordered_json& scalars,
                          double eta_seconds,
                          int columns);

/// "4m12s", "1h02m", "3d04h".
std::string short_duration(double seconds);
/// "950", "12.3k", "1.24M".
std::string short_count(double count);

/// Seconds a step, recent steps weighing more: steps and seconds decay alike, by a factor e in
/// `memory_seconds`, so a pause (a checkpoint, a validation) counts and is then forgotten.
class StepRate {
 public:
  explicit StepRate(double memory_seconds = 60.0) : memory_seconds_(memory_seconds) {}
  /// `step` is done at time `now_seconds`. The first call only sets the start: a run's first step
  /// warms up and tells little of the others.
  void observe(int64_t step, double now_seconds);
  /// Negative while not known.
  double seconds_per_step() const;

 private:
  double memory_seconds_;
  double steps_ = 0, seconds_ = 0;
  int64_t last_step_ = -1;
  double last_seconds_ = 0;
};

/// Decides when to print, and how.
class ProgressLine {
 public:
  explicit ProgressLine(int64_t total_steps);
  ~ProgressLine();
  void show(int64_t step, const nlohmann::ordered_json& scalars);

 private:
  struct State;
  std::shared_ptr<State> state_;  ///< Shared with the log sink that clears the line.
};

}  // namespace cohort::core
