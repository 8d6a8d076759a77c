#include "rl/sample_counts.h"

#include <algorithm>

namespace cohort::rl {
namespace {

using nlohmann::ordered_json;
using Whole = std::pair<const char*, int64_t SampleCounts::*>;

constexpr Whole kWhole[] = {{"prompts", &SampleCounts::prompts},
                            {"samples", &SampleCounts::samples},
                            {"kept", &SampleCounts::kept},
                            {"prompts_with_kept", &SampleCounts::prompts_with_kept},
                            {"below", &SampleCounts::below},
                            {"truncated_left_out", &SampleCounts::truncated_left_out},
                            {"empty", &SampleCounts::empty},
                            {"duplicates", &SampleCounts::duplicates},
                            {"surplus", &SampleCounts::surplus},
                            {"passed", &SampleCounts::passed},
                            {"truncated", &SampleCounts::truncated},
                            {"tokens", &SampleCounts::tokens},
                            {"kept_tokens", &SampleCounts::kept_tokens},
                            {"reward_failures", &SampleCounts::reward_failures}};

}  // namespace

SampleCounts& SampleCounts::operator+=(const SampleCounts& other) {
  for (const auto& [name, member] : kWhole) this->*member += other.*member;
  reward += other.reward;
  seconds += other.seconds;
  return *this;
}

ordered_json counts_json(const SampleCounts& counts) {
  ordered_json json;
  for (const auto& [name, member] : kWhole) json[name] = counts.*member;
  json["reward"] = counts.reward;
  json["seconds"] = counts.seconds;
  return json;
}

SampleCounts read_counts(const ordered_json& json) {
  SampleCounts counts;
  for (const auto& [name, member] : kWhole) counts.*member = json.at(name).get<int64_t>();
  counts.reward = json.at("reward").get<double>();
  counts.seconds = json.at("seconds").get<double>();
  return counts;
}

ordered_json counts_summary(const SampleCounts& counts) {
  ordered_json json;
  for (const auto& [name, member] : kWhole) json[name] = counts.*member;
  const auto samples = static_cast<double>(std::max<int64_t>(1, counts.samples));
  json["pass_rate"] = static_cast<double>(counts.passed) / samples;
  json["reward_mean"] = counts.reward / samples;
  json["seconds"] = counts.seconds;
  json["tokens_per_second"] = static_cast<double>(counts.tokens) / std::max(counts.seconds, 1e-9);
  return json;
}

}  // namespace cohort::rl
