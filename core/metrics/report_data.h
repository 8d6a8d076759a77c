// What the page of a run shows, gathered from its folder.
#pragma once
#include <filesystem>
#include <nlohmann/json.hpp>

namespace cohort::core {

/// Reads the run in `dir` as streams and returns
///
///   name, dir, written        texts; `written` is the present time
///   figures                   numbers of the header; only those that are known:
///                             step, total_steps, loss, lm_loss, val_loss, val_loss_step,
///                             val_bits_per_byte, gzip_bits_per_byte, tokens, tokens_per_second,
///                             wall_seconds, skipped_steps, max_vio; of RL eval_pass_at_1 and
///                             eval_step, each of the last evaluation and with _first of the
///                             first, eval_problems; reward_mean, pass_rate,
///                             completion_tokens_mean: means over the last rl_mean_steps steps,
///                             with _first over the first; logp_drift_max, routing_mismatch: the
///                             greatest; generate_tokens_per_second: the median
///   curves                    {key: Curve::json()} of every numeric key of metrics.jsonl
///   loads                     LoadHistory::json()
///   samples                   report_samples()
///   events                    [{step, event, text, time}], in the order of steps
///   config                    text of config.yaml, or null
///   data_card, summary        what those .json files hold, or null; long arrays are cut
///   checkpoints               [{name, bytes}]
///
/// metrics.jsonl, config.yaml, data_card.json, summary.json, experts.jsonl, samples.jsonl,
/// events.jsonl and checkpoints/ may each be missing, but not both of the first two: that is no
/// run, and an InputError.
nlohmann::ordered_json report_data(const std::filesystem::path& dir);

}  // namespace cohort::core
