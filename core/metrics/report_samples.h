// The sampled completions of an RL run that its page shows.
#pragma once
#include <filesystem>
#include <nlohmann/json.hpp>

namespace cohort::core {

/// Reads samples.jsonl (core/metrics/metrics.h) twice as a stream and returns a choice of it: at
/// most 200 completions from at most 40 steps, evenly spread, first and last among them. Three
/// steps (`glance`: before, during, after) get three times as many as the others. Of a step the
/// problems come first that other steps have too, so that their answers can be compared; nothing is
/// chosen by its reward.
///
///   lines, steps   how many the file holds
///   unreadable     lines that are no sample
///   cut_bytes      texts longer than that are [head, tail, bytes left out between]
///   right_by       name of the first of `rewards`: a completion is right when its value is at
///                  least 1, which is what pass_rate counts; null (no rewards): `reward` decides
///   glance         steps, rising; fewer than three when the file has fewer
///   problems       [{id, prompt, answer}]: texts; answer may be null
///   shown          [{step, problem (index), completion, reward, rewards, advantage, tokens,
///                  truncated, held_out, right}], by step; numbers may be null
///
/// Null when the file is missing or holds no sample.
nlohmann::ordered_json report_samples(const std::filesystem::path& path);

}  // namespace cohort::core
