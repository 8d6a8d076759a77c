// Cohort's side of bench/grpo: seconds of a whole GRPO step (generation, rewards, one update with
// AdamW) on random prompts without an early end of completions, as one JSON line. Under mpirun the
// prompts are shared out and the experts spread over the ranks.
#include <ATen/Parallel.h>
#include <omp.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/base/rng.h"
#include "core/config/hf_config.h"
#include "distributed/launch.h"
#include "rl/advantages.h"
#include "rl/generator.h"
#include "rl/grpo_step.h"

using namespace cohort;

namespace {

struct Options {
  std::string config, dtype = "fp32";
  int threads = 2;
  int64_t prompts = 4, group = 8, prompt = 32, new_tokens = 64, steps = 4;
};

std::vector<rl::GenerationRequest> random_requests(const Options& o,
                                                   uint64_t seed,
                                                   int64_t count,
                                                   int64_t vocab) {
  std::vector<rl::GenerationRequest> requests(count);
  uint64_t drawn = 0;
  for (auto& request : requests) {
    for (int64_t i = 0; i < o.prompt; ++i)
      request.prompt.push_back(
          static_cast<int32_t>(2 + core::random_bits(seed, 0, drawn++) % (vocab - 2)));
    for (int64_t i = 0; i < o.group; ++i)
      request.seeds.push_back(core::random_bits(seed, 1, drawn++));
  }
  return requests;
}

class Bench {
 public:
  explicit Bench(const Options& o)
      : o_(o),
        config_(
            core::model_config_from_hf(nlohmann::json::parse(std::ifstream(o.config)), o.config)),
        mesh_(make_mesh()),
        model_(without_end(config_), mesh_.ep, 1, o.dtype == "bf16" ? at::kBFloat16 : at::kFloat),
        optimizer_(model_.parameters(), mesh_, {}),
        generator_(model_, nullptr, mesh_.ep, {o.prompts * o.group, 0, true}) {
    sampling_.max_new_tokens = o.new_tokens;
  }

  /// Seconds of one step.
  double step(uint64_t seed) {
    const auto start = std::chrono::steady_clock::now();
    const auto requests = random_requests(
        o_, seed * 100 + mesh_.shape.dp_rank, o_.prompts / mesh_.shape.dp, config_.vocab_size);
    const auto completions = generator_.generate(requests, sampling_);
    std::vector<double> rewards;
    for (const auto& group : completions)
      for (const auto& one : group) rewards.push_back(one.tokens.back() % 7);
    const at::Tensor worth = rl::advantages(
        at::tensor(rewards, at::kDouble), o_.group, rl::AdvantageScale::kGroup, *mesh_.dp);
    std::vector<rl::PolicySequence> sequences;
    for (size_t i = 0; i < completions.size(); ++i)
      for (const auto& one : completions[i])
        sequences.push_back({requests[i].prompt,
                             &one,
                             worth[static_cast<int64_t>(sequences.size())].item<double>(),
                             true});
    rl::GrpoStepOptions options;
    options.loss.kind = rl::PolicyLossKind::kDapo;  // the peer's default
    options.group_size = o_.group;
    options.micro_batch = static_cast<int64_t>(sequences.size());
    options.step = {1e-6, 0.001};
    drift_ = rl::grpo_step(model_, optimizer_, mesh_, nullptr, sequences, options).logp_drift_max;
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    return took.count();
  }

  void measure() {
    std::vector<double> seconds;
    double generated = 0;
    for (int64_t i = 0; i <= o_.steps; ++i) {
      const double before = generator_.counters().seconds;
      const double took = step(i);
      if (i == 0) continue;
      seconds.push_back(took);
      generated += (generator_.counters().seconds - before) / static_cast<double>(o_.steps);
    }
    if (mesh_.shape.rank != 0) return;
    std::nth_element(seconds.begin(), seconds.begin() + seconds.size() / 2, seconds.end());
    const double median = seconds[seconds.size() / 2];
    const double tokens = static_cast<double>(o_.prompts * o_.group * o_.new_tokens);
    const nlohmann::ordered_json line{{"seconds_per_step", median},
                                      {"generated_tokens_per_second", tokens / median},
                                      {"generate_seconds", generated},
                                      {"logp_drift_max", drift_},
                                      {"threads", o_.threads},
                                      {"ranks", mesh_.shape.world},
                                      {"dtype", o_.dtype}};
    std::printf("%s\n", line.dump().c_str());
  }

 private:
  static distributed::Mesh make_mesh() {
    core::MeshConfig config;
    config.ep = distributed::world_size();
    return distributed::make_mesh(config);
  }
  static core::ModelConfig without_end(core::ModelConfig config) {
    config.eos_token_id = -1;
    return config;
  }

  Options o_;
  core::ModelConfig config_;
  distributed::Mesh mesh_;
  moe::Transformer model_;
  distributed::ShardedOptimizer optimizer_;
  rl::Generator generator_;
  core::SamplingConfig sampling_;
  double drift_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  distributed::launch(&argc, &argv);
  return distributed::run_ranks([&] {
    CLI::App app{"Times Cohort's GRPO step"};
    Options o;
    app.add_option("config", o.config, "config.json of the model")->required();
    app.add_option("--threads", o.threads, "threads of each rank");
    app.add_option("--prompts", o.prompts, "prompts a step, over all ranks");
    app.add_option("--group", o.group, "completions a prompt");
    app.add_option("--prompt", o.prompt, "tokens of a prompt");
    app.add_option("--new", o.new_tokens, "tokens of a completion");
    app.add_option("--steps", o.steps, "timed steps");
    app.add_option("--dtype", o.dtype, "fp32 or bf16");
    CLI11_PARSE(app, argc, argv);
    at::set_num_threads(o.threads);
    omp_set_num_threads(o.threads);
    Bench(o).measure();
    return 0;
  });
}
