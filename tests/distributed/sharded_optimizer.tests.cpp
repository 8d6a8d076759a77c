#include "distributed/sharded_optimizer.h"

#include <torch/csrc/autograd/custom_function.h>

#include <cmath>

#include "core/base/error.h"
#include "core/optim/adamw.h"
#include "distributed/gradient_buckets.h"
#include "tests/catch.h"
#include "tests/distributed/toy_model.h"

using namespace cohort;
using namespace cohort::distributed;
using namespace cohort::tests;

namespace {

at::Tensor leaf(const at::Tensor& values) { return values.clone().requires_grad_(true); }

/// loss = sum(w * x) * sum(w), computed again in backward as activation checkpointing does it.
struct Recomputed : torch::autograd::Function<Recomputed> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, at::Tensor x, at::Tensor w) {
    context->save_for_backward({x});
    context->saved_data["w"] = w;
    return (w.detach() * x).sum() * w.detach().sum();
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list grads) {
    const at::AutoGradMode with_grad(true);
    const at::Tensor x = context->get_saved_variables()[0].detach().requires_grad_(true);
    const at::Tensor w = context->saved_data["w"].toTensor();
    torch::autograd::backward({(w * x).sum() * w.sum()}, {grads[0]});
    return {x.grad(), at::Tensor()};
  }
};

/// A reduce-scatter of one rank that counts how often it is started.
struct CountingCommunicator : Communicator {
  explicit CountingCommunicator(std::shared_ptr<Communicator> real) : real(std::move(real)) {}
  int rank() const override { return real->rank(); }
  int size() const override { return real->size(); }
  const std::string& axis() const override { return real->axis(); }
  void barrier() override { real->barrier(); }
  void all_reduce(at::Tensor& t, ReduceOp op) override { real->all_reduce(t, op); }
  void broadcast(at::Tensor& t, int root) override { real->broadcast(t, root); }
  void all_gather(at::Tensor& out, const at::Tensor& in) override { real->all_gather(out, in); }
  std::unique_ptr<Work> reduce_scatter_async(at::Tensor& out, const at::Tensor& in) override {
    ++started;
    return real->reduce_scatter_async(out, in);
  }
  void all_to_all_counts(const int64_t* s, int64_t* r, int64_t n) override {
    real->all_to_all_counts(s, r, n);
  }
  void all_to_all_v(at::Tensor& out,
                    const std::vector<int64_t>& r,
                    const at::Tensor& in,
                    const std::vector<int64_t>& s) override {
    real->all_to_all_v(out, r, in, s);
  }
  std::vector<std::string> all_gather_text(const std::string& text) override { return {text}; }
  std::shared_ptr<Communicator> real;
  int started = 0;
};

core::OptimizerConfig plain() {
  core::OptimizerConfig config;
  config.clip = 0;
  config.weight_decay = 0;
  return config;
}

}  // namespace

TEST_CASE("Parameters keep their values and share flat storage afterwards",
          "[distributed][optimizer]") {
  const Mesh mesh = make_local_mesh();
  const ToyModel model(mesh.shape, at::kFloat);
  const auto before = model.named();
  ShardedOptimizer optimizer(model.parameters, mesh, plain());
  const auto after = model.named();
  for (size_t i = 0; i < before.size(); ++i) CHECK(at::equal(before[i].second, after[i].second));
  CHECK(model.fused.storage().is_alias_of(model.bias.storage()));
  CHECK(model.fused.grad().storage().is_alias_of(model.bias.grad().storage()));
  CHECK(model.fused.requires_grad());
  CHECK(reinterpret_cast<uintptr_t>(model.bias.data_ptr()) % 64 == 0);
}

TEST_CASE("Gradients are sums over micro-batches and start from zero each step",
          "[distributed][optimizer]") {
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble, at::kBFloat16}) {
    const at::Tensor w = leaf(at::ones({2, 3}, dtype));
    ShardedOptimizer optimizer({core::named_parameter("w", w)}, make_local_mesh(), plain());
    for (int step = 0; step < 3; ++step) {
      optimizer.zero_gradients();
      for (int micro = 0; micro < 4; ++micro) {
        if (micro == 3) optimizer.expect_last_backward();
        torch::autograd::backward({(w * (micro + 1)).sum()}, {});
      }
      const OptimizerStepReport report = optimizer.step(0.0);
      CHECK(optimizer.reduced_gradient("w").eq(10).all().item<bool>());
      CHECK(report.grad_norm == Approx(10 * std::sqrt(6.0)));
    }
  }
}

TEST_CASE("Clipping scales the update's gradient and reports the norm before it",
          "[distributed][optimizer]") {
  const at::Tensor w = leaf(at::zeros({1, 2}, at::kDouble));
  core::OptimizerConfig config = plain();
  config.clip = 1.0;
  config.eps = 1.0;  // So that the gradient's size shows in the first step.
  ShardedOptimizer optimizer({core::named_parameter("w", w)}, make_local_mesh(), config);
  optimizer.zero_gradients();
  torch::autograd::backward({(w * at::tensor({3.0, 4.0}, at::kDouble)).sum()}, {});
  CHECK(optimizer.step(0.1).grad_norm == Approx(5.0));
  const double g = 3.0 / (5.0 + 1e-6);
  CHECK(w[0][0].item<double>() == Approx(-0.1 * g / (g + 1)).epsilon(1e-12));
}

TEST_CASE("Vectors decay only when asked, matrices always", "[distributed][optimizer]") {
  for (const bool decay_vectors : {false, true}) {
    const at::Tensor matrix = leaf(at::ones({2, 2})), vector = leaf(at::ones({3}));
    core::OptimizerConfig config = plain();
    config.weight_decay = 0.5;
    config.decay_vectors = decay_vectors;
    ShardedOptimizer optimizer(
        {core::named_parameter("m", matrix), core::named_parameter("v", vector)},
        make_local_mesh(),
        config);
    optimizer.zero_gradients();
    optimizer.step(0.1);
    CHECK(matrix[0][0].item<float>() == Approx(0.95));
    CHECK(vector[0].item<float>() == Approx(decay_vectors ? 0.95 : 1.0));
  }
}

TEST_CASE("Full buckets leave during the last backward, last layers first",
          "[distributed][optimizer]") {
  Mesh mesh = make_local_mesh();
  const auto counting = std::make_shared<CountingCommunicator>(mesh.dp_gradients);
  mesh.dp_gradients = counting;
  const at::Tensor first = leaf(at::ones({8, 8})), second = leaf(at::ones({8, 8}));
  core::OptimizerConfig config = plain();
  config.bucket_mb = 1e-4;
  ShardedOptimizer optimizer(
      {core::named_parameter("first", first), core::named_parameter("second", second)},
      mesh,
      config);
  for (int step = 1; step <= 3; ++step) {
    counting->started = 0;
    optimizer.zero_gradients();
    torch::autograd::backward({(second * first).sum()}, {});
    CHECK(counting->started == 0);
    optimizer.expect_last_backward();
    torch::autograd::backward({second.sum()}, {});
    // Once it is known how often a gradient arrives, the last layer's bucket need not wait for the
    // first layer's.
    CHECK(counting->started == (step == 1 ? 0 : 1));
    torch::autograd::backward({first.sum()}, {});
    CHECK(counting->started == (step == 1 ? 0 : 2));
    optimizer.step(1e-3);
    CHECK(counting->started == 2);
    CHECK(optimizer.reduced_gradient("second").sub(first.detach() + 1).abs().max().item<float>() <
          0.1);
  }
}

TEST_CASE("A bucket without all its gradients waits for the step", "[distributed][optimizer]") {
  Mesh mesh = make_local_mesh();
  const auto counting = std::make_shared<CountingCommunicator>(mesh.dp_gradients);
  mesh.dp_gradients = counting;
  const at::Tensor used = leaf(at::ones({4, 4})), unused = leaf(at::ones({4, 4}));
  ShardedOptimizer optimizer(
      {core::named_parameter("used", used), core::named_parameter("unused", unused)},
      mesh,
      plain());
  for (int step = 1; step <= 3; ++step) {
    counting->started = 0;
    optimizer.zero_gradients();
    optimizer.expect_last_backward();
    torch::autograd::backward({used.sum()}, {});
    CHECK(counting->started == 0);
    optimizer.step(1e-3);
    CHECK(counting->started == 1);
    CHECK(optimizer.reduced_gradient("unused").eq(0).all().item<bool>());
  }
}

TEST_CASE("Recomputed layers count a shared parameter as often as it arrives",
          "[distributed][optimizer]") {
  for (const at::ScalarType dtype : {at::kDouble, at::kBFloat16}) {
    Mesh mesh = make_local_mesh();
    const auto counting = std::make_shared<CountingCommunicator>(mesh.dp_gradients);
    mesh.dp_gradients = counting;
    const at::Tensor w = leaf(at::ones({3}, dtype)), v = leaf(at::ones({3}, dtype));
    ShardedOptimizer optimizer(
        {core::named_parameter("v", v), core::named_parameter("w", w)}, mesh, plain());
    for (int step = 1; step <= 3; ++step) {
      counting->started = 0;
      optimizer.zero_gradients();
      for (int micro = 0; micro < 2; ++micro) {
        if (micro == 1) optimizer.expect_last_backward();
        // w is used outside and inside the recomputed part: two arrivals a backward.
        torch::autograd::backward({Recomputed::apply(v * 2, w) + 5 * w.sum()}, {});
      }
      CHECK(counting->started == (step == 1 ? 0 : 1));
      optimizer.step(0.0);
      // d/dw of sum(2 w) sum(w) + 5 sum(w) at ones: 2 * 3 + 6 + 5 = 17; two micro-batches.
      CHECK(optimizer.reduced_gradient("w").eq(34).all().item<bool>());
      // d/dv of 2 sum(v w) sum(w) = 6.
      CHECK(optimizer.reduced_gradient("v").eq(12).all().item<bool>());
    }
  }
}

TEST_CASE("A gradient that comes after its bucket has left is an error",
          "[distributed][optimizer]") {
  const at::Tensor w = leaf(at::ones({3}));
  ShardedOptimizer optimizer({core::named_parameter("w", w)}, make_local_mesh(), plain());
  optimizer.zero_gradients();
  torch::autograd::backward({w.sum()}, {});
  optimizer.step(0.0);
  CHECK_THROWS_AS(torch::autograd::backward({w.sum()}, {}), cohort::Error);
  optimizer.zero_gradients();
  torch::autograd::backward({w.sum()}, {});
  CHECK(optimizer.reduced_gradient("w").eq(1).all().item<bool>());
}

TEST_CASE("A gradient that someone dropped still reaches its bucket", "[distributed][optimizer]") {
  const at::Tensor w = leaf(at::ones({3}));
  ShardedOptimizer optimizer({core::named_parameter("w", w)}, make_local_mesh(), plain());
  optimizer.zero_gradients();
  w.mutable_grad().reset();
  for (int micro = 0; micro < 2; ++micro) torch::autograd::backward({w.sum()}, {});
  optimizer.step(0.0);
  CHECK(optimizer.reduced_gradient("w").eq(2).all().item<bool>());
}

TEST_CASE("Parameters that cannot be sharded are refused", "[distributed][optimizer]") {
  const auto make = [](const core::ParameterList& list) {
    ShardedOptimizer optimizer(list, make_local_mesh(), plain());
  };
  const at::Tensor w = leaf(at::ones({4, 2}));
  CHECK_THROWS_AS(make({core::named_parameter("a", w), core::named_parameter("b", w)}), Error);
  CHECK_THROWS_AS(make({core::named_parameter("a", at::ones({2}))}), Error);
  CHECK_THROWS_AS(make({core::named_parameter("a", leaf(at::ones({2}, at::kHalf)))}), Error);
  CHECK_THROWS_AS(make({{w, {{"half", 0, {2, 2}}}, core::Replicas::kData, false}}), Error);
  core::OptimizerConfig config = plain();
  config.name = "sgd";
  CHECK_THROWS_AS(ShardedOptimizer({core::named_parameter("a", w)}, make_local_mesh(), config),
                  InputError);
}
