// What the NCCL communicator calls of NCCL and of the CUDA runtime, as a table in own types: the
// CPU build needs no header of theirs, and tests put a stand-in over host memory in its place.
#pragma once
#include <ATen/ATen.h>

#include <functional>

#include "distributed/communicator.h"

namespace cohort::distributed {

/// The values are those of ncclDataType_t and ncclRedOp_t.
enum class NcclType { kInt64 = 4, kFloat32 = 7, kFloat64 = 8, kBFloat16 = 9 };
enum class NcclOp { kSum = 0, kMax = 2, kMin = 3 };

/// Throws Error naming `operation` for a dtype that no Communicator takes.
NcclType nccl_type(at::ScalarType dtype, const char* operation);
NcclOp nccl_op(ReduceOp op);

struct NcclId {
  char bytes[128];
};

/// Communicators, streams and events are handles of the libraries. Each function returns the
/// library's code (0: fine) unless said otherwise. Communicators do not block: a call may return
/// kInProgress, and async_error then says when it has got through.
struct NcclCalls {
  static constexpr int kSuccess = 0, kInProgress = 7;
  template <class... T>
  using Call = std::function<int(T...)>;

  Call<NcclId*> get_id;
  Call<void**, int, NcclId, int> init;  ///< Communicator out, size, id, rank.
  Call<void*, int*> async_error;        ///< The state of a communicator: a code out.
  Call<void*> finalize, destroy, abort;
  Call<const void*, void*, size_t, NcclType, NcclOp, void*, void*>
      all_reduce;  ///< In, out, elements, ..., communicator, stream.
  Call<void*, size_t, NcclType, int, void*, void*> broadcast;           ///< In place, from a root.
  Call<const void*, void*, size_t, NcclType, void*, void*> all_gather;  ///< Elements a rank.
  Call<const void*, void*, size_t, NcclType, NcclOp, void*, void*>
      reduce_scatter;  ///< Elements a rank.
  Call<const void*, size_t, NcclType, int, void*, void*> send;
  Call<void*, size_t, NcclType, int, void*, void*> receive;
  Call<> group_start, group_end;
  std::function<std::string(int code, void* communicator)> nccl_words;

  Call<> enter_thread;         ///< Once on each thread that uses the table: picks the GPU.
  Call<void**> stream_create;  ///< One that does not wait for the default stream.
  Call<void*> stream_destroy;
  std::function<void*()> current_stream;  ///< On which ATen computes.
  Call<void**> event_create;
  Call<void*> event_destroy;
  Call<void*, void*> event_record;  ///< Event, stream.
  Call<void*, void*> stream_wait;   ///< Stream, event as last recorded.
  Call<void*, bool*> event_done;
  std::function<std::string(int code)> cuda_words;

  /// Whether a tensor is where NCCL can reach it. Others go over MPI.
  std::function<bool(const at::Tensor&)> on_device;
};

/// The real ones, for a GPU by its index. In a binary built with COHORT_GPU alone.
NcclCalls nccl_calls(int device);

}  // namespace cohort::distributed
