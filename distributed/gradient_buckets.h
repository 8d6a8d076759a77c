// Parameters and their gradients in flat buckets, and the reduce-scatter of each bucket as soon as
// backward has filled it.
//
// A bucket's parameters have the same replicas, so its gradient is summed over one axis; each rank
// of that axis gets one contiguous slice of the sum. Buckets are made in the reverse order of the
// parameter list, because backward reaches the last layers first.
//
//   add     autograd's hooks count what has arrived
//   flush   a full bucket starts travelling; the order on an axis is the same on all ranks
//   finish  the rest is sent, and all is waited for
#pragma once
#include <ATen/ATen.h>

#include <array>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/nn/parameter.h"
#include "distributed/mesh.h"

namespace cohort::distributed {

/// A named tensor within a bucket: elements [begin, end) of it.
struct BucketPart {
  std::string name;
  std::vector<int64_t> shape;
  int64_t begin, end;
  bool is_embedding;
};

struct Bucket {
  core::Replicas replicas;
  std::shared_ptr<Communicator> axis;  ///< Of weights; its twin carries gradients.
  std::shared_ptr<Communicator> gradients_axis;
  std::vector<BucketPart> parts;  ///< In order of begin; gaps between them are zeros.
  at::Tensor weights;             ///< [numel], the parameters' dtype.
  at::Tensor gradients;           ///< [numel], fp64 for fp64 weights, else fp32.
  at::Tensor reduced;             ///< [slice], this rank's slice of the summed gradient.

  int64_t numel() const { return weights.numel(); }
  int64_t slice() const { return reduced.numel(); }
  int64_t slice_begin(int rank) const { return slice() * rank; }
  int64_t own_begin() const { return slice_begin(axis->rank()); }
  at::Tensor own_weights() const { return weights.narrow(0, own_begin(), slice()); }
};

class GradientBuckets {
 public:
  /// Moves values and gradients of all parameters into buckets of about `bucket_bytes` of gradient.
  /// `kind` keeps parameters with different answers apart. Throws Error for a tensor that is not a
  /// contiguous leaf of fp32, fp64 or bf16 on the CPU or a GPU, or that is listed twice.
  GradientBuckets(const core::ParameterList& parameters,
                  const Mesh& mesh,
                  int64_t bucket_bytes,
                  const std::function<int(const core::Parameter&)>& kind);
  ~GradientBuckets();
  GradientBuckets(const GradientBuckets&) = delete;
  GradientBuckets& operator=(const GradientBuckets&) = delete;

  std::vector<Bucket>& buckets() { return buckets_; }

  void zero();
  void expect_last_backward();
  /// Afterwards `reduced` of each bucket is the sum over all ranks; a second call changes nothing.
  /// Collective.
  void finish();

 private:
  struct Hook;
  /// A parameter, and where its gradient is collected.
  struct Entry {
    at::Tensor value;
    at::Tensor gradient;  ///< View into the bucket.
    std::string name;
    size_t bucket;
    int arrivals = 0;  ///< In the last backward of this step.
    int expected = 0;  ///< Learned from earlier steps; a shared parameter in a recomputed layer
                       ///< arrives more than once.
  };
  /// How far the reduction of a bucket is.
  struct Progress {
    size_t num_missing = 0;  ///< Parameters whose last gradient is not there yet.
    bool sent = false;
    std::unique_ptr<Work> work;
  };
  /// Buckets of one axis, in the order in which they are sent.
  struct Lane {
    std::vector<size_t> buckets;
    size_t num_sent = 0, num_done = 0;
  };

  void check(const core::ParameterList& parameters) const;
  void lay_out(const core::ParameterList& parameters,
               const std::vector<size_t>& members,
               const Mesh& mesh);
  void arrived(size_t index);
  void send_full_buckets();
  void send(Lane& lane);

  std::vector<Entry> entries_;
  std::vector<Bucket> buckets_;
  std::vector<Progress> progress_;
  std::array<Lane, 2> lanes_;
  bool in_last_backward_ = false;
  bool has_learned_ = false;
  bool finished_ = false;
};

}  // namespace cohort::distributed
