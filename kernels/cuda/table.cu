// kernels/device_table.h, filled in by this build's kernels.
#include "kernels/device_table.h"

#include "kernels/cuda/attention_backward.cuh"
#include "kernels/cuda/attention_decode.cuh"
#include "kernels/cuda/attention_forward.cuh"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/dispatch.cuh"
#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/router.cuh"

namespace cohort::kernels::COHORT_DEVICE {
namespace {

Stream stream_of(void* stream) { return static_cast<Stream>(stream); }

template <class T>
const T* in(const void* pointer) {
  return static_cast<const T*>(pointer);
}
template <class T>
T* out(void* pointer) {
  return static_cast<T*>(pointer);
}

void sort_pairs_call(const int64_t* expert,
                     int64_t num_pairs,
                     int64_t E,
                     int64_t* count,
                     int64_t* pair_at,
                     int64_t* place_of,
                     void* workspace,
                     void* stream) {
  sort_pairs(expert, num_pairs, E, count, pair_at, place_of, workspace, stream_of(stream));
}

void gather_call(Element element,
                 const void* rows,
                 const int64_t* index,
                 int64_t divisor,
                 int64_t num_rows,
                 int64_t D,
                 void* result,
                 void* stream) {
  if (element == Element::kFloat)
    gather_rows(
        in<float>(rows), index, divisor, num_rows, D, out<float>(result), stream_of(stream));
  else
    gather_rows(in<bf16>(rows), index, divisor, num_rows, D, out<bf16>(result), stream_of(stream));
}

void scatter_call(Element element,
                  const void* rows,
                  const int64_t* index,
                  int64_t num_rows,
                  int64_t D,
                  void* result,
                  void* stream) {
  if (element == Element::kFloat)
    scatter_rows(in<float>(rows), index, num_rows, D, out<float>(result), stream_of(stream));
  else
    scatter_rows(in<bf16>(rows), index, num_rows, D, out<bf16>(result), stream_of(stream));
}

void combine_call(Element element,
                  const void* rows,
                  const int64_t* place_of,
                  const float* gate,
                  int64_t T,
                  int64_t K,
                  int64_t D,
                  void* result,
                  void* stream) {
  if (element == Element::kFloat)
    combine_rows(in<float>(rows), place_of, gate, T, K, D, out<float>(result), stream_of(stream));
  else
    combine_rows(in<bf16>(rows), place_of, gate, T, K, D, out<bf16>(result), stream_of(stream));
}

void combine_backward_call(Element element,
                           const void* d_out,
                           const void* rows,
                           const int64_t* place_of,
                           const float* gate,
                           int64_t T,
                           int64_t K,
                           int64_t D,
                           void* d_rows,
                           float* d_gate,
                           void* stream) {
  if (element == Element::kFloat)
    combine_rows_backward(in<float>(d_out),
                          in<float>(rows),
                          place_of,
                          gate,
                          T,
                          K,
                          D,
                          out<float>(d_rows),
                          d_gate,
                          stream_of(stream));
  else
    combine_rows_backward(in<bf16>(d_out),
                          in<bf16>(rows),
                          place_of,
                          gate,
                          T,
                          K,
                          D,
                          out<bf16>(d_rows),
                          d_gate,
                          stream_of(stream));
}

RouterShape shape_of(const DeviceRouting& routing) {
  RouterShape shape{routing.T, routing.E, routing.K};
  shape.num_groups = routing.num_groups;
  shape.groups_kept = routing.groups_kept;
  shape.scoring = routing.softmax ? Scoring::kSoftmax : Scoring::kSigmoid;
  shape.normalise = routing.normalise;
  shape.scale = routing.scale;
  return shape;
}

bool routes(const DeviceRouting& routing) {
  return routing.E <= 1024 && routing.K <= 32 && routing.num_groups <= 32 &&
         routing.E % routing.num_groups == 0 &&
         routing.K <= routing.groups_kept * (routing.E / routing.num_groups);
}

void route_call(const DeviceRouting& routing,
                const float* logits,
                const float* bias,
                float* scores,
                int64_t* expert,
                float* gate,
                void* stream) {
  route(shape_of(routing), logits, bias, scores, expert, gate, stream_of(stream));
}

void route_backward_call(const DeviceRouting& routing,
                         const float* scores,
                         const int64_t* expert,
                         const float* d_gate,
                         const float* d_scores,
                         float* d_logits,
                         void* stream) {
  route_backward(shape_of(routing), scores, expert, d_gate, d_scores, d_logits, stream_of(stream));
}

AttentionProblem problem_of(const DeviceAttention& attention) {
  AttentionProblem problem;
  problem.num_tokens = attention.num_tokens;
  problem.num_runs = attention.num_runs;
  problem.run_start = attention.run_start;
  problem.longest_run = attention.longest_run;
  problem.heads = attention.heads;
  problem.kv_heads = attention.kv_heads;
  problem.qk_dim = attention.qk_dim;
  problem.v_dim = attention.v_dim;
  problem.scale = attention.scale;
  return problem;
}

void attention_forward_call(const DeviceAttention& attention,
                            const void* q,
                            const void* k,
                            const void* v,
                            void* result,
                            float* lse,
                            void* stream) {
  const auto kernel = attention.wgmma ? attention_forward_hopper : attention_forward;
  kernel(problem_of(attention),
         in<bf16>(q),
         in<bf16>(k),
         in<bf16>(v),
         out<bf16>(result),
         lse,
         stream_of(stream));
}

bool attends_by_wgmma(int64_t qk_dim, int64_t v_dim) {
  return has_hopper_attention(qk_dim, v_dim) && device_is_hopper();
}

size_t attention_backward_bytes(const DeviceAttention& attention) {
  return attention_backward_workspace(problem_of(attention));
}

void attention_backward_call(const DeviceAttention& attention,
                             const void* q,
                             const void* k,
                             const void* v,
                             const void* result,
                             const float* lse,
                             const void* d_out,
                             void* d_q,
                             void* d_k,
                             void* d_v,
                             void* workspace,
                             void* stream) {
  const auto kernel = attention.wgmma ? attention_backward_hopper : attention_backward;
  kernel(problem_of(attention),
         in<bf16>(q),
         in<bf16>(k),
         in<bf16>(v),
         in<bf16>(result),
         lse,
         in<bf16>(d_out),
         out<bf16>(d_q),
         out<bf16>(d_k),
         out<bf16>(d_v),
         workspace,
         stream_of(stream));
}

DecodeAttentionProblem problem_of(const DeviceDecoding& decoding) {
  DecodeAttentionProblem problem;
  problem.queries = decoding.queries;
  problem.heads = decoding.heads;
  problem.latent_dim = decoding.latent_dim;
  problem.rope_dim = decoding.rope_dim;
  problem.row = decoding.row;
  problem.spans = decoding.spans;
  problem.first_span = decoding.first_span;
  problem.position = decoding.position;
  problem.longest = decoding.longest;
  problem.scale = decoding.scale;
  return problem;
}

size_t attention_decode_bytes(const DeviceDecoding& decoding) {
  return attention_decode_workspace(problem_of(decoding));
}

void attention_decode_call(Element element,
                           const DeviceDecoding& decoding,
                           const void* q,
                           const void* cache,
                           void* result,
                           void* workspace,
                           void* stream) {
  if (element == Element::kFloat)
    attention_decode(problem_of(decoding),
                     in<float>(q),
                     in<float>(cache),
                     out<float>(result),
                     workspace,
                     stream_of(stream));
  else
    attention_decode(problem_of(decoding),
                     in<bf16>(q),
                     in<bf16>(cache),
                     out<bf16>(result),
                     workspace,
                     stream_of(stream));
}

}  // namespace

const DeviceTable& device_table() {
  static const DeviceTable table{sort_pairs_workspace,
                                 sort_pairs_call,
                                 gather_call,
                                 scatter_call,
                                 combine_call,
                                 combine_backward_call,
                                 routes,
                                 route_call,
                                 route_backward_call,
                                 has_attention_kernel,
                                 attends_by_wgmma,
                                 attention_forward_call,
                                 attention_backward_bytes,
                                 attention_backward_call,
                                 has_decode_kernel,
                                 attention_decode_bytes,
                                 attention_decode_call};
  return table;
}

}  // namespace cohort::kernels::COHORT_DEVICE
