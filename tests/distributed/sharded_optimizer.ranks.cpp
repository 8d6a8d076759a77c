// One optimizer, many meshes: each is compared with the same model trained on one rank.
#include "distributed/sharded_optimizer.h"

#include <cmath>
#include <map>

#include "core/base/error.h"
#include "distributed/launch.h"
#include "tests/catch.h"
#include "tests/distributed/toy_model.h"

using namespace cohort;
using namespace cohort::distributed;
using namespace cohort::tests;

#define ALL_RANKS "[distributed][optimizer][ranks1][ranks2][ranks4]"

namespace {

core::OptimizerConfig settings(const std::string& name) {
  core::OptimizerConfig config;
  config.name = name;
  config.lr = 1e-2;
  config.clip = 3.0;          // Below the toy's norm: every step is clipped.
  config.bucket_mb = 0.0003;  // 40 doubles: several buckets, and matrices larger than one.
  return config;
}

struct Trained {
  std::vector<double> norms;
  std::map<std::string, at::Tensor> weights, gradients;
  std::map<std::string, std::vector<OwnedSlice>> owned;
};

Trained train(const Mesh& mesh,
              const core::OptimizerConfig& config,
              at::ScalarType dtype,
              bool overlap,
              int steps = 5) {
  const ToyModel model(mesh.shape, dtype);
  ShardedOptimizer optimizer(model.parameters, mesh, config);
  Trained result;
  for (int step = 1; step <= steps; ++step) {
    optimizer.zero_gradients();
    model.backward(optimizer, step, overlap);
    const OptimizerStepReport report = optimizer.step(config.lr);
    CHECK_FALSE(report.skipped);
    CHECK(report.non_finite.empty());
    result.norms.push_back(report.grad_norm);
  }
  CHECK(optimizer.num_updates() == steps);
  for (const auto& [name, value] : model.named()) {
    result.weights[name] = value;
    result.gradients[name] = optimizer.reduced_gradient(name).clone();
  }
  return result;
}

double difference(const at::Tensor& a, const at::Tensor& b) {
  return (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>() /
         std::max(1e-3, b.to(at::kDouble).abs().max().item<double>());
}

void check_same(const Trained& a, const Trained& b, double tolerance) {
  for (size_t i = 0; i < a.norms.size(); ++i)
    CHECK(std::abs(a.norms[i] - b.norms[i]) <= tolerance * b.norms[i]);
  for (const auto& [name, value] : a.weights) {
    CAPTURE(name);
    CHECK(difference(value, b.weights.at(name)) <= tolerance);
    CHECK(difference(a.gradients.at(name), b.gradients.at(name)) <= tolerance);
  }
}

}  // namespace

TEST_CASE("Every mesh trains the same model in fp64", ALL_RANKS) {
  for (const std::string name : {"adamw", "muon"}) {
    core::OptimizerConfig config = settings(name);
    for (const double bucket_mb : {0.0003, 32.0}) {
      config.bucket_mb = bucket_mb;
      const Trained alone = train(make_local_mesh(), config, at::kDouble, false);
      CHECK(alone.norms[0] > config.clip);
      for (int ep = 1; ep <= world_size(); ep *= 2) {
        for (const bool overlap : {false, true}) {
          CAPTURE(name, bucket_mb, ep, overlap);
          check_same(train(make_mesh({0, ep, 1}), config, at::kDouble, overlap), alone, 1e-12);
        }
      }
    }
  }
}

TEST_CASE("Every mesh trains the same model in fp32 within rounding", ALL_RANKS) {
  for (const std::string name : {"adamw", "muon"}) {
    const Trained alone = train(make_local_mesh(), settings(name), at::kFloat, false);
    for (int ep = 1; ep <= world_size(); ep *= 2)
      check_same(train(make_mesh({0, ep, 1}), settings(name), at::kFloat, true), alone, 2e-4);
  }
}

TEST_CASE("A run on one mesh is the same to the bit each time", ALL_RANKS) {
  for (const std::string name : {"adamw", "muon"}) {
    const Mesh mesh = make_mesh({0, world_size() > 1 ? 2 : 1, 1});
    const Trained once = train(mesh, settings(name), at::kFloat, true);
    const Trained again = train(mesh, settings(name), at::kFloat, true);
    CHECK(once.norms == again.norms);
    for (const auto& [key, value] : once.weights) CHECK(at::equal(value, again.weights.at(key)));
  }
}

TEST_CASE("bf16 weights follow fp32 masters and gradients", ALL_RANKS) {
  const Mesh mesh = make_mesh({0, world_size() > 1 ? 2 : 1, 1});
  for (const std::string name : {"adamw", "muon"}) {
    const ToyModel model(mesh.shape, at::kBFloat16);
    ShardedOptimizer optimizer(model.parameters, mesh, settings(name));
    for (int step = 1; step <= 4; ++step) {
      optimizer.zero_gradients();
      model.backward(optimizer, step, true);
      CHECK_FALSE(model.fused.grad().defined());
      optimizer.step(1e-4);  // Below bf16's resolution of most weights: the masters must move.
    }
    CHECK(optimizer.reduced_gradient("gate").scalar_type() == at::kFloat);
    bool moved = false;
    std::map<std::string, at::Tensor> weights;
    for (const auto& [key, value] : model.named()) weights[key] = value;
    for (const OwnedSlice& slice : optimizer.owned_slices()) {
      const at::Tensor& master = slice.state[0].second;
      CHECK(slice.state[0].first == "master");
      CHECK(master.scalar_type() == at::kFloat);
      const at::Tensor weight =
          weights.at(slice.name).view(-1).narrow(0, slice.begin, slice.end - slice.begin);
      CHECK(at::equal(master.to(at::kBFloat16), weight));
      moved = moved || !at::equal(master, weight.to(at::kFloat));
    }
    CHECK(moved);
  }
}

TEST_CASE("bf16 training stays near fp32 training on every mesh", ALL_RANKS) {
  core::OptimizerConfig config = settings("adamw");
  const Trained exact = train(make_local_mesh(), config, at::kFloat, false);
  for (int ep = 1; ep <= world_size(); ep *= 2) {
    const Trained rounded = train(make_mesh({0, ep, 1}), config, at::kBFloat16, true);
    CHECK(std::abs(rounded.norms[0] / exact.norms[0] - 1) < 0.02);
    for (const auto& [name, value] : rounded.weights) {
      CAPTURE(name);
      CHECK(difference(value, exact.weights.at(name)) < 0.06);
    }
  }
}

TEST_CASE("A gradient that is not finite on one rank skips the step on all", ALL_RANKS) {
  const Mesh mesh = make_mesh({0, world_size() > 1 ? 2 : 1, 1});
  for (const std::string name : {"adamw", "muon"}) {
    const ToyModel model(mesh.shape, at::kFloat);
    ShardedOptimizer optimizer(model.parameters, mesh, settings(name));
    optimizer.zero_gradients();
    model.backward(optimizer, 1, true);
    optimizer.step(1e-2);

    const auto before = model.named();
    std::vector<at::Tensor> state_before;
    for (const OwnedSlice& slice : optimizer.owned_slices())
      for (const auto& [key, value] : slice.state) state_before.push_back(value.clone());
    optimizer.zero_gradients();
    model.backward(optimizer, 2, true, world_rank() == world_size() - 1);
    const OptimizerStepReport report = optimizer.step(1e-2);
    CHECK(report.skipped);
    CHECK_FALSE(std::isfinite(report.grad_norm));
    CHECK(report.non_finite == std::vector<std::string>{"bias"});
    CHECK(optimizer.num_updates() == 1);
    const auto after = model.named();
    for (size_t i = 0; i < before.size(); ++i) CHECK(at::equal(before[i].second, after[i].second));
    size_t i = 0;
    for (const OwnedSlice& slice : optimizer.owned_slices())
      for (const auto& [key, value] : slice.state) CHECK(at::equal(value, state_before[i++]));

    optimizer.zero_gradients();
    model.backward(optimizer, 2, true);
    CHECK_FALSE(optimizer.step(1e-2).skipped);
    CHECK(optimizer.num_updates() == 2);
  }
}

TEST_CASE("At most eight names of bad parameters are told, the same on all ranks", ALL_RANKS) {
  const Mesh mesh = make_mesh({});
  core::ParameterList parameters;
  for (int i = 0; i < 12; ++i)
    parameters.push_back(
        core::named_parameter("p" + std::to_string(i), at::ones({4, 4}).requires_grad_(true)));
  ShardedOptimizer optimizer(parameters, mesh, settings("adamw"));
  optimizer.zero_gradients();
  for (int i = 0; i < 10; ++i) parameters[i].value.mutable_grad().fill_(INFINITY);
  const OptimizerStepReport report = optimizer.step(1e-2);
  CHECK(report.skipped);
  CHECK(report.non_finite.size() == 8);
  std::string joined;
  for (const std::string& name : report.non_finite) joined += name;
  for (const std::string& other : mesh.world->all_gather_text(joined)) CHECK(other == joined);
}

TEST_CASE("Masters and moments cover each element once and can be loaded", ALL_RANKS) {
  const Mesh mesh = make_mesh({0, world_size() > 1 ? 2 : 1, 1});
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kDouble}) {
    const ToyModel model(mesh.shape, dtype);
    ShardedOptimizer optimizer(model.parameters, mesh, settings("muon"));
    // Ranks together: how often is each element of "expert.e", "gate", ... owned?
    std::map<std::string, at::Tensor> owners;
    for (const char* name : {"embedding", "gate", "up", "bias", "unused"})
      owners[name] = at::Tensor();
    for (int e = 0; e < kToyExperts; ++e) owners["expert." + std::to_string(e)] = at::Tensor();
    for (auto& [name, count] : owners) {
      count = at::zeros({100}, at::kLong);
      for (const OwnedSlice& slice : optimizer.owned_slices())
        if (slice.name == name) count.narrow(0, slice.begin, slice.end - slice.begin) += 1;
      mesh.world->all_reduce(count);
      const int64_t numel = name == "embedding" ? kToySamples * kToyIn
                            : name == "bias"    ? kToyOut
                            : name == "unused"  ? 6
                                                : kToyOut * kToyIn;
      CHECK(count.narrow(0, 0, numel).eq(1).all().item<bool>());
      CHECK(count.sum().item<int64_t>() == numel);
    }
    for (const OwnedSlice& slice : optimizer.owned_slices()) {
      CHECK(slice.state[0].first == "master");
      const bool by_muon = slice.name != "embedding" && slice.name != "bias";
      CHECK(slice.state[1].first == (by_muon ? "momentum" : "exp_avg"));
      CHECK(slice.state.size() == (by_muon ? 2 : 3));
      at::Tensor master = slice.state[0].second;
      master.copy_(at::arange(slice.begin, slice.end, master.scalar_type()));
    }
    optimizer.masters_changed();
    for (const auto& [name, value] : model.named())
      CHECK(at::equal(value.view(-1), at::arange(value.numel()).to(value.scalar_type())));
  }
}

TEST_CASE("A run goes on from saved slices as if it had not stopped", ALL_RANKS) {
  const Mesh mesh = make_mesh({0, world_size() > 1 ? 2 : 1, 1});
  for (const std::string name : {"adamw", "muon"}) {
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      const ToyModel first(mesh.shape, dtype), second(mesh.shape, dtype);
      ShardedOptimizer a(first.parameters, mesh, settings(name));
      ShardedOptimizer b(second.parameters, mesh, settings(name));
      const auto step = [&](const ToyModel& model, ShardedOptimizer& optimizer, int64_t number) {
        optimizer.zero_gradients();
        model.backward(optimizer, number, true);
        optimizer.step(1e-2);
      };
      for (int i = 1; i <= 3; ++i) step(first, a, i);
      const auto from = a.owned_slices(), to = b.owned_slices();
      for (size_t s = 0; s < from.size(); ++s)
        for (size_t k = 0; k < from[s].state.size(); ++k) {
          at::Tensor target = to[s].state[k].second;
          target.copy_(from[s].state[k].second);
        }
      b.masters_changed();
      b.set_num_updates(a.num_updates());
      for (int i = 4; i <= 6; ++i) {
        step(first, a, i);
        step(second, b, i);
      }
      const auto weights = first.named(), resumed = second.named();
      for (size_t i = 0; i < weights.size(); ++i)
        CHECK(at::equal(weights[i].second, resumed[i].second));
    }
  }
}
