#include "distributed/sharded_optimizer.h"

#include <ATen/core/grad_mode.h>
#include <algorithm>
#include <cmath>
#include <sstream>

#include "core/base/device_branch.h"
#include "core/base/error.h"
#include "core/optim/adamw.h"
#include "core/optim/gradient_norm.h"
#include "core/optim/muon.h"
#include "distributed/gradient_buckets.h"

namespace cohort::distributed {
namespace {

constexpr size_t kMostNames = 8;

enum class Rule { kAdamW, kMuon };

/// The overlap of a part with this rank's slice.
struct Piece {
  BucketPart part;     ///< begin, end: within the bucket.
  int64_t begin, end;  ///< Within the slice.
  Rule rule;
  bool decays;
};

/// What this rank owns of a bucket: 1-D tensors as long as the slice.
struct OwnedState {
  at::Tensor master;      ///< The weights themselves where they have the masters' dtype.
  at::Tensor moment;      ///< exp_avg, or Muon's momentum.
  at::Tensor exp_avg_sq;  ///< Undefined when Muon rules all of the bucket.
  std::vector<Piece> pieces;
};

Rule rule_of(const core::OptimizerConfig& config, size_t num_dims, bool is_embedding) {
  return config.name == "muon" && num_dims == 2 && !is_embedding ? Rule::kMuon : Rule::kAdamW;
}

/// Elements [begin, end) of a slice that AdamW updates alike.
struct Range {
  int64_t begin, end;
  bool decays;
};

/// What AdamW updates of a slice: piece by piece, or, in the device branch, where each call is a
/// launch, neighbours that decay alike at once. The gap between two pieces holds zeros, and zeros
/// stay.
std::vector<Range> adamw_ranges(const std::vector<Piece>& pieces, bool join) {
  std::vector<Range> ranges;
  bool neighbours = false;
  for (const Piece& piece : pieces) {
    const bool rules = piece.rule == Rule::kAdamW;
    if (rules && join && neighbours && ranges.back().decays == piece.decays)
      ranges.back().end = piece.end;
    else if (rules)
      ranges.push_back({piece.begin, piece.end, piece.decays});
    neighbours = rules;
  }
  return ranges;
}

/// Elements of the bucket that `rank` needs to orthogonalise the matrices that its slice touches.
std::pair<int64_t, int64_t> matrices_of(const Bucket& bucket,
                                        const core::OptimizerConfig& config,
                                        int rank) {
  const int64_t begin = bucket.slice_begin(rank), end = begin + bucket.slice();
  int64_t first = 0, last = 0;
  for (const BucketPart& part : bucket.parts) {
    if (part.end <= begin || part.begin >= end || part.begin == part.end) continue;
    if (rule_of(config, part.shape.size(), part.is_embedding) != Rule::kMuon) continue;
    if (last == 0) first = part.begin;
    last = part.end;
  }
  return {first, last};
}

/// Each rank has the slice of a bucket's directions and gets the whole of the matrices that its
/// slice touches: [first, last) of matrices_of. Only what crosses the edge of a slice travels.
at::Tensor gather_matrices(const at::Tensor& own,
                           const Bucket& bucket,
                           const core::OptimizerConfig& config) {
  const int ranks = bucket.axis->size(), rank = bucket.axis->rank();
  const auto overlap = [&](int needing, int owning) {
    const auto [first, last] = matrices_of(bucket, config, needing);
    const int64_t begin = std::max(first, bucket.slice_begin(owning));
    const int64_t end = std::min(last, bucket.slice_begin(owning + 1));
    return std::make_pair(begin, std::max(begin, end));
  };
  std::vector<int64_t> send(ranks), receive(ranks);
  std::vector<at::Tensor> outgoing;
  int64_t total = 0;
  for (int r = 0; r < ranks; ++r) {
    const auto [begin, end] = overlap(r, rank);
    send[r] = end - begin;
    if (send[r] > 0) outgoing.push_back(own.narrow(0, begin - bucket.own_begin(), send[r]));
    const auto [their_begin, their_end] = overlap(rank, r);
    receive[r] = their_end - their_begin;
    total += receive[r];
  }
  at::Tensor whole = at::empty({total}, own.options());
  bucket.axis->all_to_all_v(
      whole, receive, outgoing.empty() ? at::empty({0}, own.options()) : at::cat(outgoing), send);
  return whole;
}

}  // namespace

struct ShardedOptimizer::State {
  State(const core::ParameterList& parameters,
        const Mesh& mesh,
        const core::OptimizerConfig& config)
      : mesh(mesh),
        config(config),
        gradients(parameters,
                  mesh,
                  static_cast<int64_t>(config.bucket_mb * 1048576),
                  [&config](const core::Parameter& parameter) {
                    return static_cast<int>(
                        rule_of(config, parameter.parts[0].shape.size(), parameter.is_embedding));
                  }) {
    for (Bucket& bucket : gradients.buckets()) owned.push_back(make_state(bucket));
  }

  OwnedState make_state(const Bucket& bucket) const;
  void publish(Bucket& bucket, OwnedState& state);
  void update(Bucket& bucket, OwnedState& state, double lr, double grad_scale);
  void update_muon(Bucket& bucket, OwnedState& state, double lr, double grad_scale);
  double global_norm();
  std::vector<std::string> non_finite_names();

  Mesh mesh;
  core::OptimizerConfig config;
  GradientBuckets gradients;
  std::vector<OwnedState> owned;  // One for each bucket.
  int64_t num_updates = 0;
};

OwnedState ShardedOptimizer::State::make_state(const Bucket& bucket) const {
  OwnedState state;
  const bool is_master = bucket.weights.scalar_type() == bucket.gradients.scalar_type();
  state.master =
      is_master ? bucket.own_weights() : bucket.own_weights().to(bucket.gradients.scalar_type());
  const int64_t begin = bucket.own_begin(), end = begin + bucket.slice();
  bool all_muon = true;
  for (const BucketPart& part : bucket.parts) {
    const Rule rule = rule_of(config, part.shape.size(), part.is_embedding);
    all_muon = all_muon && rule == Rule::kMuon;
    if (part.end <= begin || part.begin >= end || part.begin == part.end) continue;
    state.pieces.push_back({part,
                            std::max(part.begin, begin) - begin,
                            std::min(part.end, end) - begin,
                            rule,
                            part.shape.size() >= 2 || config.decay_vectors});
  }
  state.moment = at::zeros({bucket.slice()}, bucket.gradients.options());
  if (!all_muon) state.exp_avg_sq = at::zeros_like(state.moment);
  return state;
}

/// Masters to weights, on all ranks of the axis.
void ShardedOptimizer::State::publish(Bucket& bucket, OwnedState& state) {
  at::Tensor own = bucket.own_weights();
  if (own.scalar_type() != state.master.scalar_type()) own.copy_(state.master);
  bucket.axis->all_gather(bucket.weights, own);
}

void ShardedOptimizer::State::update(Bucket& bucket,
                                     OwnedState& state,
                                     double lr,
                                     double grad_scale) {
  for (const Range& range : adamw_ranges(state.pieces, core::takes_device_branch(state.master))) {
    const auto part = [&](const at::Tensor& t) { return t.slice(0, range.begin, range.end); };
    core::adamw_update(part(state.master),
                       part(bucket.reduced),
                       part(state.moment),
                       part(state.exp_avg_sq),
                       {lr,
                        config.betas[0],
                        config.betas[1],
                        config.eps,
                        range.decays ? config.weight_decay : 0.0,
                        num_updates,
                        grad_scale});
  }
  // By what all ranks know of the bucket, since it is collective.
  const bool has_matrices =
      std::any_of(bucket.parts.begin(), bucket.parts.end(), [&](const BucketPart& part) {
        return rule_of(config, part.shape.size(), part.is_embedding) == Rule::kMuon;
      });
  if (has_matrices) update_muon(bucket, state, lr, grad_scale);
}

void ShardedOptimizer::State::update_muon(Bucket& bucket,
                                          OwnedState& state,
                                          double lr,
                                          double grad_scale) {
  at::Tensor direction = at::zeros_like(state.moment);
  const auto of_piece = [](const at::Tensor& t, const Piece& piece) {
    return t.slice(0, piece.begin, piece.end);
  };
  for (const Piece& piece : state.pieces) {
    if (piece.rule != Rule::kMuon) continue;
    core::muon_momentum(of_piece(state.moment, piece),
                        of_piece(bucket.reduced, piece),
                        of_piece(direction, piece),
                        config.momentum,
                        grad_scale);
  }
  const int64_t first = matrices_of(bucket, config, bucket.axis->rank()).first;
  const at::Tensor whole = gather_matrices(direction, bucket, config);
  for (const Piece& piece : state.pieces) {
    if (piece.rule != Rule::kMuon) continue;
    const BucketPart& part = piece.part;
    const at::Tensor update = core::newton_schulz(
        whole.narrow(0, part.begin - first, part.end - part.begin).view(part.shape));
    const int64_t begin = bucket.own_begin() + piece.begin - part.begin;
    core::muon_apply(of_piece(state.master, piece),
                     update.view({-1}).narrow(0, begin, piece.end - piece.begin),
                     lr,
                     piece.decays ? config.weight_decay : 0.0,
                     core::muon_scale(part.shape[0], part.shape[1]));
  }
}

/// Each element of the model is owned once in the world, so its square is added once.
double ShardedOptimizer::State::global_norm() {
  at::Tensor total;
  if (core::takes_device_branch(gradients.buckets().front().reduced)) {
    std::vector<at::Tensor> sums;
    for (const Bucket& bucket : gradients.buckets())
      sums.push_back(core::sum_of_squares_on_device(bucket.reduced));
    total = at::stack(sums).sum().view({1});
  } else {
    double sum = 0;
    for (const Bucket& bucket : gradients.buckets()) sum += core::sum_of_squares(bucket.reduced);
    total = at::full({1}, sum, at::kDouble);
  }
  mesh.world->all_reduce(total);
  return std::sqrt(core::host_value(total));
}

std::vector<std::string> ShardedOptimizer::State::non_finite_names() {
  std::string own;
  size_t num_own = 0;
  for (size_t b = 0; b < owned.size() && num_own < kMostNames; ++b) {
    for (const Piece& piece : owned[b].pieces) {
      const at::Tensor values = gradients.buckets()[b].reduced.slice(0, piece.begin, piece.end);
      if (std::isfinite(core::sum_of_squares(values)) || num_own == kMostNames) continue;
      own += piece.part.name + "\n";
      ++num_own;
    }
  }
  std::vector<std::string> names;
  for (const std::string& text : mesh.world->all_gather_text(own)) {
    std::istringstream lines(text);
    for (std::string name; std::getline(lines, name) && names.size() < kMostNames;)
      if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  }
  return names;
}

ShardedOptimizer::ShardedOptimizer(const core::ParameterList& parameters,
                                   const Mesh& mesh,
                                   const core::OptimizerConfig& config) {
  COHORT_CHECK_INPUT(config.name == "adamw" || config.name == "muon",
                     "optimizer.name={}: use adamw or muon",
                     config.name);
  COHORT_CHECK_INPUT(config.bucket_mb > 0,
                     "optimizer.bucket_mb={}: use a positive number of MiB",
                     config.bucket_mb);
  state_ = std::make_unique<State>(parameters, mesh, config);
}

ShardedOptimizer::~ShardedOptimizer() = default;

void ShardedOptimizer::zero_gradients() { state_->gradients.zero(); }
void ShardedOptimizer::expect_last_backward() { state_->gradients.expect_last_backward(); }

OptimizerStepReport ShardedOptimizer::step(double lr) {
  const at::NoGradGuard no_grad;
  state_->gradients.finish();
  OptimizerStepReport report;
  report.grad_norm = state_->global_norm();
  if (!std::isfinite(report.grad_norm)) {
    report.skipped = true;
    report.non_finite = state_->non_finite_names();
    return report;
  }
  const double clip = state_->config.clip;
  const double grad_scale = clip > 0 ? std::min(1.0, clip / (report.grad_norm + 1e-6)) : 1.0;
  ++state_->num_updates;
  for (size_t b = 0; b < state_->owned.size(); ++b) {
    Bucket& bucket = state_->gradients.buckets()[b];
    state_->update(bucket, state_->owned[b], lr, grad_scale);
    state_->publish(bucket, state_->owned[b]);
  }
  return report;
}

int64_t ShardedOptimizer::num_updates() const { return state_->num_updates; }
void ShardedOptimizer::set_num_updates(int64_t t) { state_->num_updates = t; }

std::vector<OwnedSlice> ShardedOptimizer::owned_slices() {
  std::vector<OwnedSlice> slices;
  for (size_t b = 0; b < state_->owned.size(); ++b) {
    const Bucket& bucket = state_->gradients.buckets()[b];
    const OwnedState& state = state_->owned[b];
    for (const Piece& piece : state.pieces) {
      const auto view = [&](const at::Tensor& tensor) {
        return tensor.narrow(0, piece.begin, piece.end - piece.begin);
      };
      const int64_t begin = bucket.own_begin() + piece.begin - piece.part.begin;
      OwnedSlice slice{
          piece.part.name, piece.part.shape, begin, begin + piece.end - piece.begin, {}};
      slice.state.emplace_back("master", view(state.master));
      slice.state.emplace_back(piece.rule == Rule::kMuon ? "momentum" : "exp_avg",
                               view(state.moment));
      if (piece.rule == Rule::kAdamW)
        slice.state.emplace_back("exp_avg_sq", view(state.exp_avg_sq));
      slices.push_back(std::move(slice));
    }
  }
  return slices;
}

void ShardedOptimizer::masters_changed() {
  const at::NoGradGuard no_grad;
  for (size_t b = 0; b < state_->owned.size(); ++b)
    state_->publish(state_->gradients.buckets()[b], state_->owned[b]);
}

at::Tensor ShardedOptimizer::reduced_gradient(const std::string& name) {
  const at::NoGradGuard no_grad;
  state_->gradients.finish();
  for (Bucket& bucket : state_->gradients.buckets()) {
    for (const BucketPart& part : bucket.parts) {
      if (part.name != name) continue;
      at::Tensor all = at::empty_like(bucket.gradients);
      bucket.axis->all_gather(all, bucket.reduced);
      return all.narrow(0, part.begin, part.end - part.begin).view(part.shape);
    }
  }
  return {};
}

}  // namespace cohort::distributed
