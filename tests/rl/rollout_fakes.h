// A task and a generator for tests of rollouts that need no model: whether a completion is right
// depends on the prompt's number and the sample's place in its group alone.
//
//   prompt i with i % 4 = 0   all samples right        i % 4 = 2, 3   every second sample right
//            i % 4 = 1        all samples wrong
#pragma once
#include <string>
#include <vector>

#include "core/base/rng.h"
#include "core/tokenizer/tokenizer.h"
#include "rl/rollout.h"

namespace cohort::tests {

inline core::Tokenizer letters_tokenizer() {
  bool given = false;
  return core::train_tokenizer(
      [&](std::string& text) {
        text = "what is it?";
        return !std::exchange(given, true);
      },
      {.vocab_size = 258});
}

class NumberTask : public rl::Task {
 public:
  std::string name() const override { return "numbers"; }
  rl::Problem problem(rl::Split, int64_t index) const override {
    const std::string text = std::to_string(index);
    return {"id" + text, "Q" + text, "", {{"answer", "yes"}, {"question", text}}};
  }
};

inline rl::RewardSum exact_reward() {
  const std::vector<rl::RewardConfig> configs{{"exact", 1.0, nlohmann::json::object()}};
  return rl::RewardSum(configs);
}

/// Also notes what it was asked for.
class FakeGenerator {
 public:
  explicit FakeGenerator(const core::Tokenizer& tokenizer) : tokenizer_(tokenizer) {}

  std::vector<std::vector<rl::Generated>> operator()(
      const std::vector<rl::GenerationRequest>& requests) {
    ++calls;
    std::vector<std::vector<rl::Generated>> out;
    for (const auto& request : requests) {
      const std::span<const int32_t> prompt(request.prompt);
      const int64_t number = std::stoll(tokenizer_.decode(prompt.subspan(1)).substr(1));
      out.emplace_back();
      for (size_t i = 0; i < request.seeds.size(); ++i) {
        seeds.push_back(request.seeds[i]);
        const bool right = number % 4 == 0 || (number % 4 >= 2 && i % 2 == 0);
        out.back().push_back(completion(right, request.seeds[i]));
      }
    }
    return out;
  }

  int calls = 0;
  std::vector<uint64_t> seeds;

 private:
  /// Right ones end with the end token (1), wrong ones are cut.
  rl::Generated completion(bool right, uint64_t seed) const {
    rl::Generated generated;
    generated.tokens = tokenizer_.encode(right ? "yes" : "no");
    if (right) generated.tokens.push_back(1);
    for (size_t i = 0; i < generated.tokens.size(); ++i) {
      generated.log_prob.push_back(-static_cast<float>(core::random_uniform(seed, 1, i)));
      generated.entropy.push_back(0.5f);
    }
    generated.stop = right ? rl::StopReason::kEndToken : rl::StopReason::kLength;
    return generated;
  }

  const core::Tokenizer& tokenizer_;
};

inline std::vector<int64_t> prompt_numbers(const rl::Rollout& rollout) {
  std::vector<int64_t> out;
  for (const auto& group : rollout.groups) out.push_back(group.prompt_idx);
  return out;
}

}  // namespace cohort::tests
