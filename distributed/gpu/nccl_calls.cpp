// The table of calls, filled with NCCL and the CUDA runtime. Compiled with COHORT_GPU alone.
#include "distributed/nccl_calls.h"

#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>
#include <nccl.h>

#include <cstring>

namespace cohort::distributed {
namespace {

static_assert(static_cast<int>(NcclType::kInt64) == ncclInt64);
static_assert(static_cast<int>(NcclType::kFloat32) == ncclFloat32);
static_assert(static_cast<int>(NcclType::kFloat64) == ncclFloat64);
static_assert(static_cast<int>(NcclType::kBFloat16) == ncclBfloat16);
static_assert(static_cast<int>(NcclOp::kSum) == ncclSum);
static_assert(static_cast<int>(NcclOp::kMax) == ncclMax);
static_assert(static_cast<int>(NcclOp::kMin) == ncclMin);
static_assert(NcclCalls::kSuccess == ncclSuccess && NcclCalls::kInProgress == ncclInProgress);
static_assert(NcclCalls::kSuccess == cudaSuccess);
static_assert(sizeof(NcclId) == sizeof(ncclUniqueId));

ncclComm_t link(void* comm) { return static_cast<ncclComm_t>(comm); }
cudaStream_t stream_of(void* stream) { return static_cast<cudaStream_t>(stream); }
cudaEvent_t event_of(void* event) { return static_cast<cudaEvent_t>(event); }
ncclDataType_t type_of(NcclType type) { return static_cast<ncclDataType_t>(type); }
ncclRedOp_t op_of(NcclOp op) { return static_cast<ncclRedOp_t>(op); }

void add_communicators(NcclCalls& calls) {
  calls.get_id = [](NcclId* id) {
    ncclUniqueId made;
    const ncclResult_t code = ncclGetUniqueId(&made);
    std::memcpy(id->bytes, &made, sizeof made);
    return code;
  };
  calls.init = [](void** comm, int size, NcclId id, int rank) {
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    ncclUniqueId given;
    std::memcpy(&given, id.bytes, sizeof given);
    ncclComm_t made = nullptr;
    const ncclResult_t code = ncclCommInitRankConfig(&made, size, given, rank, &config);
    *comm = made;
    return code;
  };
  calls.async_error = [](void* comm, int* state) {
    ncclResult_t found = ncclSuccess;
    const ncclResult_t code = ncclCommGetAsyncError(link(comm), &found);
    *state = found;
    return code;
  };
  calls.finalize = [](void* comm) { return ncclCommFinalize(link(comm)); };
  calls.destroy = [](void* comm) { return ncclCommDestroy(link(comm)); };
  calls.abort = [](void* comm) { return ncclCommAbort(link(comm)); };
  calls.nccl_words = [](int code, void* comm) {
    std::string words = ncclGetErrorString(static_cast<ncclResult_t>(code));
    const char* detail = comm ? ncclGetLastError(link(comm)) : nullptr;
    if (detail && *detail) words += std::string(": ") + std::string(detail, strcspn(detail, "\n"));
    return words;
  };
}

void add_collectives(NcclCalls& calls) {
  calls.all_reduce =
      [](const void* in, void* out, size_t n, NcclType type, NcclOp op, void* comm, void* stream) {
        return ncclAllReduce(in, out, n, type_of(type), op_of(op), link(comm), stream_of(stream));
      };
  calls.broadcast = [](void* data, size_t n, NcclType type, int root, void* comm, void* stream) {
    return ncclBroadcast(data, data, n, type_of(type), root, link(comm), stream_of(stream));
  };
  calls.all_gather =
      [](const void* in, void* out, size_t n, NcclType type, void* comm, void* stream) {
        return ncclAllGather(in, out, n, type_of(type), link(comm), stream_of(stream));
      };
  calls.reduce_scatter =
      [](const void* in, void* out, size_t n, NcclType type, NcclOp op, void* comm, void* stream) {
        return ncclReduceScatter(
            in, out, n, type_of(type), op_of(op), link(comm), stream_of(stream));
      };
  calls.send = [](const void* data, size_t n, NcclType type, int peer, void* comm, void* stream) {
    return ncclSend(data, n, type_of(type), peer, link(comm), stream_of(stream));
  };
  calls.receive = [](void* data, size_t n, NcclType type, int peer, void* comm, void* stream) {
    return ncclRecv(data, n, type_of(type), peer, link(comm), stream_of(stream));
  };
  calls.group_start = [] { return ncclGroupStart(); };
  calls.group_end = [] { return ncclGroupEnd(); };
}

void add_streams(NcclCalls& calls, int device) {
  calls.enter_thread = [device] { return cudaSetDevice(device); };
  calls.stream_create = [](void** stream) {
    int lowest = 0, highest = 0;
    cudaDeviceGetStreamPriorityRange(&lowest, &highest);
    cudaStream_t made = nullptr;
    // Of highest priority: others wait for these bytes, and NCCL's kernels take few processors.
    const cudaError_t code = cudaStreamCreateWithPriority(&made, cudaStreamNonBlocking, highest);
    *stream = made;
    return code;
  };
  calls.stream_destroy = [](void* stream) { return cudaStreamDestroy(stream_of(stream)); };
  calls.current_stream = [device]() -> void* {
    return c10::cuda::getCurrentCUDAStream(static_cast<c10::DeviceIndex>(device)).stream();
  };
  calls.event_create = [](void** event) {
    cudaEvent_t made = nullptr;
    const cudaError_t code = cudaEventCreateWithFlags(&made, cudaEventDisableTiming);
    *event = made;
    return code;
  };
  calls.event_destroy = [](void* event) { return cudaEventDestroy(event_of(event)); };
  calls.event_record = [](void* event, void* stream) {
    return cudaEventRecord(event_of(event), stream_of(stream));
  };
  calls.stream_wait = [](void* stream, void* event) {
    return cudaStreamWaitEvent(stream_of(stream), event_of(event), 0);
  };
  calls.event_done = [](void* event, bool* done) {
    const cudaError_t code = cudaEventQuery(event_of(event));
    *done = code == cudaSuccess;
    return code == cudaErrorNotReady ? cudaSuccess : code;
  };
  calls.cuda_words = [](int code) {
    return std::string(cudaGetErrorString(static_cast<cudaError_t>(code)));
  };
}

}  // namespace

NcclCalls nccl_calls(int device) {
  NcclCalls calls;
  add_communicators(calls);
  add_collectives(calls);
  add_streams(calls, device);
  calls.on_device = [device](const at::Tensor& tensor) {
    return tensor.is_cuda() && tensor.get_device() == device;
  };
  return calls;
}

}  // namespace cohort::distributed
