// Cohort's side of bench/generate: generated tokens a second on random prompts, sampling at
// temperature 1 without an early end, as one JSON line.
#include <ATen/Parallel.h>
#include <omp.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/base/rng.h"
#include "core/config/hf_config.h"
#include "distributed/launch.h"
#include "distributed/mesh.h"
#include "rl/generator.h"

using namespace cohort;

namespace {

struct Options {
  std::string config, dtype = "fp32";
  int threads = 2;
  int64_t batch = 32, group = 1, prompt = 32, new_tokens = 64, runs = 3;
};

std::vector<rl::GenerationRequest> random_requests(const Options& o, uint64_t seed, int64_t vocab) {
  std::vector<rl::GenerationRequest> requests(o.batch / o.group);
  uint64_t count = 0;
  for (auto& request : requests) {
    for (int64_t i = 0; i < o.prompt; ++i)
      request.prompt.push_back(
          static_cast<int32_t>(2 + core::random_bits(seed, 0, count++) % (vocab - 2)));
    for (int64_t i = 0; i < o.group; ++i)
      request.seeds.push_back(core::random_bits(seed, 1, count++));
  }
  return requests;
}

void measure(const Options& o) {
  at::set_num_threads(o.threads);
  omp_set_num_threads(o.threads);
  auto config =
      core::model_config_from_hf(nlohmann::json::parse(std::ifstream(o.config)), o.config);
  config.eos_token_id = -1;  // no sequence ends early, so that the work is the peer's
  const auto mesh = distributed::make_local_mesh();
  moe::Transformer model(config, mesh.ep, 1, o.dtype == "bf16" ? at::kBFloat16 : at::kFloat);
  rl::Generator generator(model, nullptr, mesh.ep, {o.batch, 0, false});
  core::SamplingConfig sampling;
  sampling.max_new_tokens = o.new_tokens;
  std::vector<double> seconds;
  for (int64_t run = 0; run <= o.runs; ++run) {
    const double before = generator.counters().seconds;
    generator.generate(random_requests(o, run, config.vocab_size), sampling);
    if (run > 0) seconds.push_back(generator.counters().seconds - before);
  }
  std::nth_element(seconds.begin(), seconds.begin() + seconds.size() / 2, seconds.end());
  const double median = seconds[seconds.size() / 2];
  const nlohmann::ordered_json line{
      {"tokens_per_second", static_cast<double>(o.batch * o.new_tokens) / median},
      {"seconds", median},
      {"batch", o.batch},
      {"group", o.group},
      {"prompt", o.prompt},
      {"new", o.new_tokens},
      {"threads", o.threads},
      {"dtype", o.dtype}};
  std::printf("%s\n", line.dump().c_str());
}

}  // namespace

int main(int argc, char** argv) {
  distributed::launch(&argc, &argv);
  return distributed::run_ranks([&] {
    CLI::App app{"Times Cohort's generation"};
    Options o;
    app.add_option("config", o.config, "config.json of the model")->required();
    app.add_option("--threads", o.threads, "threads");
    app.add_option("--batch", o.batch, "sequences at once");
    app.add_option("--group", o.group, "samples of one prompt; divides batch");
    app.add_option("--prompt", o.prompt, "tokens of a prompt");
    app.add_option("--new", o.new_tokens, "generated tokens of a sequence");
    app.add_option("--runs", o.runs, "timed runs");
    app.add_option("--dtype", o.dtype, "fp32 or bf16");
    CLI11_PARSE(app, argc, argv);
    measure(o);
    return 0;
  });
}
