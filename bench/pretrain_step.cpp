// Cohort's side of bench/pretrain: seconds of a training step (forward, backward, clip 1.0, AdamW) on
// random tokens, as one JSON line. Under mpirun the experts are spread over the ranks.
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
#include "moe/pretrain_loss.h"
#include "moe/train_step.h"

using namespace cohort;

namespace {

core::Batch random_batch(uint64_t seed, int64_t rows, int64_t seq_len, int64_t vocab_size) {
  core::Batch batch{at::empty({rows, seq_len + 1}, at::kLong), {}};
  int64_t* token = batch.tokens.data_ptr<int64_t>();
  for (int64_t i = 0; i < batch.tokens.numel(); ++i)
    token[i] = 2 + static_cast<int64_t>(core::random_bits(seed, 0, i) % (vocab_size - 2));
  return batch;
}

struct Options {
  std::string config, dtype = "fp32";
  int threads = 2;
  int64_t batch = 8, seq = 256, steps = 10, warmup = 3;
};

void measure(const Options& o) {
  at::set_num_threads(o.threads);
  omp_set_num_threads(o.threads);
  const auto json = nlohmann::json::parse(std::ifstream(o.config));
  const auto config = core::model_config_from_hf(json, o.config);
  core::MeshConfig mesh_config;
  mesh_config.ep = distributed::world_size();
  const auto mesh = distributed::make_mesh(mesh_config);
  moe::Transformer model(config, mesh.ep, 1, o.dtype == "bf16" ? at::kBFloat16 : at::kFloat);
  distributed::ShardedOptimizer optimizer(model.parameters(), mesh, {});
  core::TrainConfig train;
  core::RouterConfig router;
  router.sequence_loss_alpha = 0;  // the peer computes none
  std::vector<double> seconds;
  double loss_value = 0;
  for (int64_t step = 0; step < o.warmup + o.steps; ++step) {
    const int64_t rows = o.batch / mesh.shape.dp;
    const std::vector<core::Batch> batches{
        random_batch(step * 1000 + mesh.shape.dp_rank, rows, o.seq, config.vocab_size)};
    const auto start = std::chrono::steady_clock::now();
    const auto loss = moe::pretrain_loss(batches, config, router, train, mesh);
    loss_value = moe::train_step(model, optimizer, mesh, batches, loss, {1e-3, 0.001}).loss;
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    if (step >= o.warmup) seconds.push_back(took.count());
  }
  if (mesh.shape.rank != 0) return;
  std::nth_element(seconds.begin(), seconds.begin() + seconds.size() / 2, seconds.end());
  const double median = seconds[seconds.size() / 2];
  const nlohmann::ordered_json line{{"seconds_per_step_median", median},
                                    {"tokens_per_second", o.batch * o.seq / median},
                                    {"loss", loss_value},
                                    {"threads", o.threads},
                                    {"ranks", mesh.shape.world},
                                    {"dtype", o.dtype}};
  std::printf("%s\n", line.dump().c_str());
}

}  // namespace

int main(int argc, char** argv) {
  distributed::launch(&argc, &argv);
  return distributed::run_ranks([&] {
    CLI::App app{"Times Cohort's training step"};
    Options o;
    app.add_option("config", o.config, "config.json of the model")->required();
    app.add_option("--threads", o.threads, "threads of each rank");
    app.add_option("--batch", o.batch, "rows a step, over all ranks");
    app.add_option("--seq", o.seq, "tokens a row");
    app.add_option("--steps", o.steps, "timed steps");
    app.add_option("--warmup", o.warmup, "steps before");
    app.add_option("--dtype", o.dtype, "fp32 or bf16");
    CLI11_PARSE(app, argc, argv);
    measure(o);
    return 0;
  });
}
