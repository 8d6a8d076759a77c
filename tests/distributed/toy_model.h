// A model small enough to compute on every rank: dense layers whose samples are spread over dp, and
// experts whose samples are spread over edp, with every kind of parameter an optimizer meets.
#pragma once
#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/variable.h>

#include <cmath>
#include <string>
#include <vector>

#include "core/nn/parameter.h"
#include "distributed/mesh.h"
#include "distributed/sharded_optimizer.h"

namespace cohort::tests {

constexpr int64_t kToySamples = 8, kToyExperts = 4, kToyIn = 5, kToyOut = 7;

/// Numbers that do not depend on the mesh.
inline at::Tensor toy_values(int64_t seed, at::IntArrayRef shape) {
  int64_t n = 1;
  for (const int64_t s : shape) n *= s;
  return at::sin(at::arange(n, at::kDouble) * 1.7 + seed * 0.9).mul(0.5).view(shape);
}

struct ToyModel {
  at::Tensor embedding, fused, bias, experts, unused;
  distributed::MeshShape shape;
  core::ParameterList parameters;

  ToyModel(const distributed::MeshShape& shape, at::ScalarType dtype) : shape(shape) {
    const auto leaf = [&](const at::Tensor& values) {
      return values.to(dtype).clone().requires_grad_(true);
    };
    const int64_t local = kToyExperts / shape.ep;
    embedding = leaf(toy_values(1, {kToySamples, kToyIn}));
    fused = leaf(toy_values(2, {2 * kToyOut, kToyIn}));
    bias = leaf(toy_values(3, {kToyOut}));
    experts =
        leaf(toy_values(4, {kToyExperts, kToyOut, kToyIn}).narrow(0, shape.ep_rank * local, local));
    unused = leaf(toy_values(5, {3, 2}));

    core::Parameter table = core::named_parameter("embedding", embedding);
    table.is_embedding = true;
    core::Parameter stacked{experts, {}, core::Replicas::kExpert, false};
    for (int64_t e = 0; e < local; ++e) {
      stacked.parts.push_back({"expert." + std::to_string(shape.ep_rank * local + e),
                               e * kToyOut * kToyIn,
                               {kToyOut, kToyIn}});
    }
    core::Parameter pair{
        fused,
        {{"gate", 0, {kToyOut, kToyIn}}, {"up", kToyOut * kToyIn, {kToyOut, kToyIn}}},
        core::Replicas::kData,
        false};
    parameters = {core::named_parameter("unused", unused),
                  table,
                  pair,
                  core::named_parameter("bias", bias),
                  stacked};
  }

  at::Tensor dense_loss(int64_t sample, int64_t step) const {
    const at::Tensor x = embedding.select(0, sample);
    const at::Tensor both = at::mv(fused, x);
    const at::Tensor y =
        both.narrow(0, 0, kToyOut) * both.narrow(0, kToyOut, kToyOut).sigmoid() + bias;
    const at::Tensor target = toy_values(100 * step + sample, {kToyOut}).to(y.scalar_type());
    return (y - target).square().sum();
  }

  /// Expert 3 gets no sample in even steps: with ep its rank has no gradient then.
  at::Tensor expert_loss(int64_t sample, int64_t step) const {
    at::Tensor loss = at::zeros({}, experts.options().requires_grad(false));
    const int64_t local = experts.size(0);
    for (int64_t e = 0; e < local; ++e) {
      const int64_t expert = shape.ep_rank * local + e;
      if (expert == 3 && step % 2 == 0) continue;
      const at::Tensor x = toy_values(sample + 10 * expert, {kToyIn}).to(experts.scalar_type());
      const at::Tensor y = at::mv(experts.select(0, e), x);
      loss =
          loss + (y - toy_values(7 * step + sample, {kToyOut}).to(y.scalar_type())).square().sum();
    }
    return loss;
  }

  /// Losses of this rank's share, summed, one micro-batch at a time; the optimizer is told of the
  /// last one. `poison` makes the gradient of one element of "bias" NaN, and no other.
  void backward(distributed::ShardedOptimizer& optimizer,
                int64_t step,
                bool overlap,
                bool poison = false) const {
    const int64_t dense = kToySamples / shape.dp, sparse = kToySamples / shape.edp;
    for (int64_t micro = 0; micro < 2; ++micro) {
      if (micro == 1 && overlap) optimizer.expect_last_backward();
      at::Tensor loss = at::zeros({}, fused.options().requires_grad(false));
      for (int64_t i = dense * micro / 2; i < dense * (micro + 1) / 2; ++i)
        loss = loss + dense_loss(shape.dp_rank * dense + i, step);
      for (int64_t i = sparse * micro / 2; i < sparse * (micro + 1) / 2; ++i)
        loss = loss + expert_loss(shape.edp_rank * sparse + i, step);
      if (poison) loss = loss + bias.select(0, 2) * NAN;
      if (loss.requires_grad()) torch::autograd::backward({loss}, {});
    }
  }

  /// The whole of each named part that this rank holds.
  std::vector<std::pair<std::string, at::Tensor>> named() const {
    std::vector<std::pair<std::string, at::Tensor>> all;
    for (const core::Parameter& parameter : parameters) {
      for (const core::ParameterPart& part : parameter.parts) {
        const int64_t n = c10::multiply_integers(part.shape);
        all.emplace_back(
            part.name,
            parameter.value.detach().view(-1).narrow(0, part.offset, n).view(part.shape).clone());
      }
    }
    return all;
  }
};

}  // namespace cohort::tests
