#include "distributed/gradient_buckets.h"

#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <map>
#include <set>
#include <tuple>

#include "core/base/error.h"
#include "core/optim/gradient_norm.h"

namespace cohort::distributed {
namespace {

constexpr int64_t kAlignment = 16;   // Elements: parameters begin on a cache line.
constexpr size_t kMostUnderWay = 4;  // Each bucket under way holds memory for what arrives.

int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

at::ScalarType state_dtype(at::ScalarType weights) {
  return weights == at::kDouble ? at::kDouble : at::kFloat;
}

/// Parameters of each bucket, as positions in the list, buckets in the order in which backward
/// completes them.
std::vector<std::vector<size_t>> group(const core::ParameterList& parameters,
                                       int64_t bucket_bytes,
                                       const std::function<int(const core::Parameter&)>& kind) {
  struct Open {
    std::vector<size_t> members;
    int64_t bytes = 0;
  };
  std::map<std::tuple<core::Replicas, at::ScalarType, int>, Open> open;
  std::vector<std::vector<size_t>> groups;
  for (size_t i = parameters.size(); i-- > 0;) {
    const core::Parameter& parameter = parameters[i];
    const at::ScalarType dtype = parameter.value.scalar_type();
    const int64_t bytes =
        parameter.value.numel() * static_cast<int64_t>(c10::elementSize(state_dtype(dtype)));
    Open& bucket = open[{parameter.replicas, dtype, kind(parameter)}];
    if (!bucket.members.empty() && bucket.bytes + bytes > bucket_bytes) {
      groups.push_back(std::move(bucket.members));
      bucket = {};
    }
    bucket.members.push_back(i);
    bucket.bytes += bytes;
  }
  for (auto& [key, bucket] : open) groups.push_back(std::move(bucket.members));
  std::sort(groups.begin(), groups.end(), [](const auto& a, const auto& b) {
    return a.back() > b.back();
  });
  return groups;
}

}  // namespace

/// Autograd calls it after it has added to a parameter's gradient.
struct GradientBuckets::Hook : torch::autograd::PostAccumulateGradHook {
  Hook(GradientBuckets* owner, size_t index) : owner(owner), index(index) {}
  void operator()(const at::Tensor&) override { owner->arrived(index); }
  GradientBuckets* owner;
  size_t index;
};

GradientBuckets::GradientBuckets(const core::ParameterList& parameters,
                                 const Mesh& mesh,
                                 int64_t bucket_bytes,
                                 const std::function<int(const core::Parameter&)>& kind) {
  check(parameters);
  const at::NoGradGuard no_grad;
  entries_.resize(parameters.size());
  for (const auto& members : group(parameters, bucket_bytes, kind))
    lay_out(parameters, members, mesh);
  progress_.resize(buckets_.size());
  for (size_t i = 0; i < entries_.size(); ++i)
    torch::autograd::impl::set_post_acc_grad_hooks(entries_[i].value,
                                                   std::make_unique<Hook>(this, i));
  zero();
}

GradientBuckets::~GradientBuckets() {
  for (Entry& entry : entries_)
    if (entry.value.defined()) torch::autograd::impl::set_post_acc_grad_hooks(entry.value, nullptr);
}

void GradientBuckets::check(const core::ParameterList& parameters) const {
  std::set<const c10::TensorImpl*> seen;
  for (const core::Parameter& parameter : parameters) {
    COHORT_CHECK(!parameter.parts.empty() && parameter.value.defined(), "a parameter has no name");
    const at::Tensor& value = parameter.value;
    const std::string& name = parameter.parts[0].name;
    const at::ScalarType dtype = value.scalar_type();
    COHORT_CHECK(seen.insert(value.unsafeGetTensorImpl()).second, "{} is listed twice", name);
    COHORT_CHECK((value.is_cpu() || value.is_cuda()) && value.is_contiguous() && value.is_leaf() &&
                     value.requires_grad(),
                 "{} is not a contiguous trainable leaf on the CPU or a GPU",
                 name);
    COHORT_CHECK(dtype == at::kFloat || dtype == at::kDouble || dtype == at::kBFloat16,
                 "{} is of {}; parameters are fp32, fp64 or bf16",
                 name,
                 c10::toString(dtype));
    int64_t covered = 0;
    for (const core::ParameterPart& part : parameter.parts) {
      COHORT_CHECK(part.offset == covered,
                   "{} begins at element {} of its parameter, not at {}",
                   part.name,
                   part.offset,
                   covered);
      covered += c10::multiply_integers(part.shape);
    }
    COHORT_CHECK(covered == value.numel(),
                 "the parts of {} cover {} of {} elements",
                 name,
                 covered,
                 value.numel());
  }
}

void GradientBuckets::lay_out(const core::ParameterList& parameters,
                              const std::vector<size_t>& members,
                              const Mesh& mesh) {
  const core::Parameter& any = parameters[members[0]];
  const bool is_expert = any.replicas == core::Replicas::kExpert;
  Bucket bucket;
  bucket.replicas = any.replicas;
  bucket.axis = is_expert ? mesh.edp : mesh.dp;
  bucket.gradients_axis = is_expert ? mesh.edp_gradients : mesh.dp_gradients;

  std::vector<int64_t> starts;
  int64_t numel = 0;
  for (const size_t i : members) {
    starts.push_back(numel);
    for (const core::ParameterPart& part : parameters[i].parts) {
      const int64_t begin = numel + part.offset;
      bucket.parts.push_back({part.name,
                              part.shape,
                              begin,
                              begin + c10::multiply_integers(part.shape),
                              parameters[i].is_embedding});
    }
    numel = round_up(numel + parameters[i].value.numel(), kAlignment);
  }
  const int64_t ranks = bucket.axis->size();
  numel = round_up(std::max<int64_t>(numel, 1), kAlignment * ranks);

  const auto state =
      any.value.options().dtype(state_dtype(any.value.scalar_type())).requires_grad(false);
  bucket.weights = at::zeros({numel}, any.value.options().requires_grad(false));
  bucket.gradients = at::zeros({numel}, state);
  bucket.reduced = ranks == 1 ? bucket.gradients : at::zeros({numel / ranks}, state);

  for (size_t m = 0; m < members.size(); ++m) {
    at::Tensor value = parameters[members[m]].value;
    const at::Tensor moved = bucket.weights.narrow(0, starts[m], value.numel()).view(value.sizes());
    moved.copy_(value.detach());
    value.set_data(moved);
    Entry& entry = entries_[members[m]];
    entry.value = value;
    entry.gradient = bucket.gradients.narrow(0, starts[m], value.numel()).view(value.sizes());
    entry.name = parameters[members[m]].parts[0].name;
    entry.bucket = buckets_.size();
  }
  lanes_[is_expert ? 1 : 0].buckets.push_back(buckets_.size());
  buckets_.push_back(std::move(bucket));
}

void GradientBuckets::zero() {
  // Other ranks may have begun to send: a step that is given up midway is still reduced by all.
  if (in_last_backward_ && !finished_) finish();
  for (Bucket& bucket : buckets_) bucket.gradients.zero_();
  for (Entry& entry : entries_) {
    if (entry.value.scalar_type() == entry.gradient.scalar_type())
      entry.value.mutable_grad() = entry.gradient;  // Autograd adds in place.
    else
      entry.value.mutable_grad().reset();
    entry.arrivals = 0;
  }
  for (Progress& progress : progress_) progress = {};
  for (Lane& lane : lanes_) lane.num_sent = lane.num_done = 0;
  in_last_backward_ = finished_ = false;
}

void GradientBuckets::expect_last_backward() {
  COHORT_CHECK(!finished_, "gradients are reduced already: zero_gradients() begins a new step");
  in_last_backward_ = true;
  for (Progress& progress : progress_) progress.num_missing = 0;
  for (Entry& entry : entries_) {
    entry.arrivals = 0;
    ++progress_[entry.bucket].num_missing;
  }
}

void GradientBuckets::arrived(size_t index) {
  Entry& entry = entries_[index];
  Progress& progress = progress_[entry.bucket];
  COHORT_CHECK(!progress.sent && !finished_,
               "the gradient of {} came after its bucket was sent",
               entry.name);
  at::Tensor& grad = entry.value.mutable_grad();
  if (!grad.is_same(entry.gradient)) {
    const at::NoGradGuard no_grad;
    if (grad.scalar_type() == at::kBFloat16 && grad.is_contiguous())
      core::accumulate(entry.gradient, grad);
    else if (grad.data_ptr() != entry.gradient.data_ptr())
      entry.gradient.add_(grad);
    if (entry.value.scalar_type() == entry.gradient.scalar_type())
      grad = entry.gradient;
    else
      grad.reset();
  }
  if (!in_last_backward_) return;
  if (++entry.arrivals == entry.expected) --progress.num_missing;
  if (has_learned_) send_full_buckets();
}

void GradientBuckets::send(Lane& lane) {
  const size_t index = lane.buckets[lane.num_sent++];
  Bucket& bucket = buckets_[index];
  progress_[index].sent = true;
  progress_[index].work =
      bucket.gradients_axis->reduce_scatter_async(bucket.reduced, bucket.gradients);
}

void GradientBuckets::send_full_buckets() {
  for (Lane& lane : lanes_) {
    while (lane.num_done < lane.num_sent && progress_[lane.buckets[lane.num_done]].work->test())
      ++lane.num_done;
    while (lane.num_sent < lane.buckets.size() && lane.num_sent - lane.num_done < kMostUnderWay &&
           progress_[lane.buckets[lane.num_sent]].num_missing == 0)
      send(lane);
  }
}

void GradientBuckets::finish() {
  if (finished_) return;
  for (Lane& lane : lanes_) {
    while (lane.num_done < lane.buckets.size()) {
      while (lane.num_sent < lane.buckets.size() && lane.num_sent - lane.num_done < kMostUnderWay)
        send(lane);
      progress_[lane.buckets[lane.num_done++]].work->wait();
    }
  }
  finished_ = true;
  if (!in_last_backward_) return;
  for (Entry& entry : entries_) entry.expected = std::max({entry.expected, entry.arrivals, 1});
  has_learned_ = true;
}

}  // namespace cohort::distributed
