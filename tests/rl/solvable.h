// Problems with a made-up model that solves as many samples of each as its prompt says.
#pragma once
#include <string>
#include <vector>

#include "rl/evaluate.h"

namespace cohort::tests {

inline core::Tokenizer byte_tokenizer() {
  bool given = false;
  const auto next = [&given](std::string& text) {
    text = "<answer>7</answer> <answer>8</answer>";
    return !std::exchange(given, true);
  };
  return core::train_tokenizer(next, {300, "gpt2", {"<|begin|>", "<|end|>"}, 2});
}

/// "3" is solved by three samples: its data has the answer 7.
inline rl::Problem solvable(int right, const std::string& category, int number) {
  return {"id" + std::to_string(number),
          std::to_string(right),
          category,
          {{"answer", "7"}, {"number", number}}};
}

/// Sample j of a prompt "R" answers 7 when j < R, else 8; every third sample of a problem runs into
/// the length limit behind its answer. Remembers what it was asked.
struct MadeUpModel {
  const core::Tokenizer& tokenizer;
  int32_t end_token;
  std::vector<rl::GenerationRequest> asked = {};

  std::vector<std::vector<rl::Generated>> operator()(
      const std::vector<rl::GenerationRequest>& requests) {
    asked.insert(asked.end(), requests.begin(), requests.end());
    std::vector<std::vector<rl::Generated>> out;
    for (const auto& request : requests) {
      const std::string prompt = tokenizer.decode(request.prompt, true);
      std::vector<rl::Generated> group;
      for (size_t j = 0; j < request.seeds.size(); ++j) {
        const bool right = static_cast<int>(j) < std::stoi(prompt);
        rl::Generated one;
        one.tokens = tokenizer.encode(right ? "so\n<answer>7</answer>" : "<answer> 8 </answer>");
        one.stop = j % 3 == 2 ? rl::StopReason::kLength : rl::StopReason::kEndToken;
        if (one.stop == rl::StopReason::kEndToken) one.tokens.push_back(end_token);
        group.push_back(std::move(one));
      }
      out.push_back(std::move(group));
    }
    return out;
  }
};

}  // namespace cohort::tests
