// A small model, completions that it draws itself, and sequences made of them.
#pragma once
#include <vector>

#include "distributed/mesh.h"
#include "rl/generator.h"
#include "rl/policy_batch.h"
#include "tests/moe/tiny.h"

namespace cohort::tests {

inline core::ModelConfig policy_model() {
  auto config = tiny_model();
  config.num_nextn_predict_layers = 0;
  config.max_position_embeddings = 128;
  config.eos_token_id = 60;
  return config;
}

/// Two groups of four completions of up to twelve tokens, with the advantages of a rollout.
struct DrawnSequences {
  std::vector<std::vector<int32_t>> prompts{{3, 9, 4, 7, 1}, {5, 2, 17}};
  std::vector<std::vector<rl::Generated>> groups;
  std::vector<rl::PolicySequence> sequences;

  DrawnSequences(moe::Transformer& model,
                 std::shared_ptr<distributed::Communicator> ep,
                 double temperature = 1) {
    rl::Generator generator(model, nullptr, std::move(ep), {256, 0, true});
    core::SamplingConfig sampling;
    sampling.max_new_tokens = 12;
    sampling.temperature = temperature;
    groups = generator.generate({{prompts[0], {1, 2, 3, 4}}, {prompts[1], {5, 6, 7, 8}}}, sampling);
    const std::vector<double> advantages{1, -0.5, -1, 0.5};
    for (size_t g = 0; g < groups.size(); ++g)
      for (size_t i = 0; i < groups[g].size(); ++i)
        sequences.push_back({prompts[g], &groups[g][i], advantages[(i + g) % 4], true});
  }
  DrawnSequences(const DrawnSequences&) = delete;
};

}  // namespace cohort::tests
