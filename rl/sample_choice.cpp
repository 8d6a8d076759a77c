#include "rl/sample_choice.h"

#include <algorithm>
#include <set>

#include "core/base/rng.h"
#include "rl/white_space.h"

namespace cohort::rl {
namespace {

void order_by_preference(std::vector<int64_t>& places,
                         std::span<const SampledCompletion> completions,
                         const core::SampleConfig& config,
                         uint64_t seed) {
  if (config.keep_per_prompt == 0) return;
  if (config.choose == "best") {
    std::stable_sort(places.begin(), places.end(), [&](int64_t a, int64_t b) {
      return completions[a].reward > completions[b].reward;
    });
    return;
  }
  const auto key = [&](int64_t place) {
    return core::random_bits(seed, core::stream_of("sample.choose"), static_cast<uint64_t>(place));
  };
  std::stable_sort(
      places.begin(), places.end(), [&](int64_t a, int64_t b) { return key(a) < key(b); });
}

}  // namespace

std::string normalised_space(std::string_view text) {
  std::string out;
  bool pending = false;
  for (size_t at = 0; at < text.size();) {
    if (const size_t bytes = white_space_at(text, at)) {
      pending = !out.empty();
      at += bytes;
      continue;
    }
    if (pending) out += ' ';
    pending = false;
    out += text[at++];
  }
  return out;
}

Choice choose(std::span<const SampledCompletion> completions,
              const core::SampleConfig& config,
              uint64_t seed) {
  Choice choice;
  std::vector<int64_t> candidates;
  for (size_t i = 0; i < completions.size(); ++i) {
    const SampledCompletion& one = completions[i];
    if (!(one.reward >= config.keep_at_least))
      ++choice.below;
    else if (one.truncated && !config.keep_truncated)
      ++choice.truncated;
    else if (one.text.empty())
      ++choice.empty;
    else
      candidates.push_back(static_cast<int64_t>(i));
  }
  order_by_preference(candidates, completions, config, seed);
  std::set<std::string> seen;
  for (const int64_t place : candidates) {
    if (config.deduplicate && !seen.insert(normalised_space(completions[place].text)).second)
      ++choice.duplicates;
    else if (config.keep_per_prompt > 0 &&
             static_cast<int64_t>(choice.kept.size()) == config.keep_per_prompt)
      ++choice.surplus;
    else
      choice.kept.push_back(place);
  }
  std::sort(choice.kept.begin(), choice.kept.end());
  return choice;
}

}  // namespace cohort::rl
