#include "core/nn/device/attention.h"

#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <limits>

#include "core/base/device_kernels.h"
#include "core/base/error.h"
#include "core/nn/device/rotation.h"
#include "core/nn/kernel_types.h"

namespace cohort::core::device {
namespace {

/// Elements of the cache that decoding gathers at a time.
constexpr int64_t kGathered = int64_t{1} << 27;

at::Tensor to_device(const std::vector<int64_t>& values, at::Device device) {
  return at::tensor(values, at::kLong).to(device, /*non_blocking=*/true);
}

/// [B, S, Hkv, D] -> [B, S, H, D]: each key head for its query heads.
at::Tensor for_each_query_head(const at::Tensor& x, int64_t heads) {
  const int64_t group = heads / x.size(2);
  if (group == 1) return x;
  return x.unsqueeze(3)
      .expand({x.size(0), x.size(1), x.size(2), group, x.size(3)})
      .reshape({x.size(0), x.size(1), heads, x.size(3)});
}

/// [N, n, H, D] each -> [N, n, H, Dv].
at::Tensor causal(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, double scale) {
  return at::scaled_dot_product_attention(q.transpose(1, 2),
                                          k.transpose(1, 2),
                                          v.transpose(1, 2),
                                          /*attn_mask=*/{},
                                          /*dropout_p=*/0.0,
                                          /*is_causal=*/true,
                                          scale)
      .transpose(1, 2);
}

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

kernels::DeviceAttention problem_of(const at::Tensor& q,
                                    const at::Tensor& k,
                                    const at::Tensor& v,
                                    const at::Tensor& run_start,
                                    int64_t longest,
                                    double scale) {
  return {q.size(0),
          run_start.numel() - 1,
          run_start.const_data_ptr<int64_t>(),
          longest,
          q.size(1),
          k.size(1),
          q.size(2),
          v.size(2),
          static_cast<float>(scale),
          wgmma_attention()};
}

/// q [T, H, Dqk], k [T, Hkv, Dqk], v [T, Hkv, Dv] in bf16 -> [T, H, Dv], by our kernels.
struct AttentionByKernel : torch::autograd::Function<AttentionByKernel> {
  static at::Tensor forward(AutogradContext* context,
                            const at::Tensor& q_in,
                            const at::Tensor& k_in,
                            const at::Tensor& v_in,
                            const at::Tensor& run_start,
                            int64_t longest,
                            double scale) {
    const at::Tensor q = q_in.contiguous(), k = k_in.contiguous(), v = v_in.contiguous();
    at::Tensor out = at::empty({q.size(0), q.size(1), v.size(2)}, q.options());
    at::Tensor lse = at::empty({q.size(1), q.size(0)}, q.options().dtype(at::kFloat));
    device_kernels(q)->attention_forward(problem_of(q, k, v, run_start, longest, scale),
                                         q.data_ptr(),
                                         k.data_ptr(),
                                         v.data_ptr(),
                                         out.data_ptr(),
                                         lse.data_ptr<float>(),
                                         device_stream(q));
    context->save_for_backward({q, k, v, run_start, out, lse});
    context->saved_data["longest"] = longest;
    context->saved_data["scale"] = scale;
    return out;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &q = saved[0], &k = saved[1], &v = saved[2], &out = saved[4], &lse = saved[5];
    const auto problem = problem_of(q,
                                    k,
                                    v,
                                    saved[3],
                                    context->saved_data["longest"].toInt(),
                                    context->saved_data["scale"].toDouble());
    const at::Tensor d_out = gradients[0].contiguous();
    at::Tensor d_q = at::empty_like(q), d_k = at::empty_like(k), d_v = at::empty_like(v);
    const auto* kernels = device_kernels(q);
    const at::Tensor workspace =
        device_workspace(kernels->attention_backward_workspace(problem), q);
    kernels->attention_backward(problem,
                                q.data_ptr(),
                                k.data_ptr(),
                                v.data_ptr(),
                                out.data_ptr(),
                                lse.data_ptr<float>(),
                                d_out.data_ptr(),
                                d_q.data_ptr(),
                                d_k.data_ptr(),
                                d_v.data_ptr(),
                                workspace.data_ptr(),
                                device_stream(q));
    return {d_q, d_k, d_v, at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

bool has_attention_kernel(const at::Tensor& q, const at::Tensor& v) {
  const auto* kernels = device_kernels(q);
  if (!kernels || q.scalar_type() != at::kBFloat16 || !kernels->attends(q.size(3), v.size(3)))
    return false;
  COHORT_CHECK_INPUT(
      !wgmma_attention() || kernels->attends_by_wgmma(q.size(3), v.size(3)),
      "COHORT_ATTENTION=wgmma: there is no such kernel for heads of {} and {} on this "
      "device (192/128, 128/128 and 64/64, compute capability 9.0); unset it",
      q.size(3),
      v.size(3));
  return true;
}

at::Tensor by_kernel(const at::Tensor& q,
                     const at::Tensor& k,
                     const at::Tensor& v,
                     const AttentionLayout& layout,
                     double scale) {
  const at::Tensor run_start =
      layout.run_start.defined() ? layout.run_start : run_starts(layout, q.device());
  int64_t longest = 0;
  for (const auto& run : layout.runs) longest = std::max(longest, run.count);
  return AttentionByKernel::apply(
             q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), run_start, longest, scale)
      .view({q.size(0), q.size(1), q.size(2), v.size(3)});
}

}  // namespace

at::Tensor run_starts(const AttentionLayout& layout, at::Device device) {
  std::vector<int64_t> starts;
  int64_t tokens = 0;
  for (const auto& run : layout.runs) {
    starts.push_back(tokens);
    tokens += run.count;
  }
  starts.push_back(tokens);
  return to_device(starts, device);
}

at::Tensor positions(const AttentionLayout& layout, at::Device device) {
  std::vector<int64_t> position;
  position.reserve(layout.batch * layout.seq_len);
  for (const auto& run : layout.runs)
    for (int64_t i = 0; i < run.count; ++i) position.push_back(run.position + i);
  return to_device(position, device);
}

at::Tensor attention(const AttentionInputs& in,
                     const Rotation& rotation,
                     const AttentionLayout& layout,
                     double scale) {
  const int64_t B = in.q.size(0), S = in.q.size(1), H = in.q.size(2);
  const auto dtype = in.q.scalar_type();
  at::Tensor q = in.q, k = in.k, v = in.v, shared = in.k_shared;
  if (!v.defined()) {
    const int64_t own = q.size(3) - (shared.defined() ? shared.size(2) : 0);
    v = k.narrow(3, own, k.size(3) - own);
    k = k.narrow(3, 0, own);
  }
  if (rotation.cos.defined()) {
    const auto position =
        layout.position.defined() ? layout.position : positions(layout, q.device());
    const auto of_tokens = [&](const at::Tensor& table) {
      return table.index_select(0, position).view({B, S, 1, table.size(1)});
    };
    const auto cos = of_tokens(rotation.cos), sin = of_tokens(rotation.sin);
    const auto turn = [&](const at::Tensor& x) {
      return rotated(x, cos, sin, rotation.interleave).to(dtype);
    };
    q = turn(q);
    if (shared.defined())
      shared = turn(shared.unsqueeze(2)).squeeze(2);
    else
      k = turn(k);
  }
  if (shared.defined()) {
    const auto for_all = shared.unsqueeze(2).expand({B, S, k.size(2), shared.size(2)});
    k = at::cat({k, for_all}, 3);
  }
  if (!layout.runs.empty() && has_attention_kernel(q, v)) return by_kernel(q, k, v, layout, scale);
  k = for_each_query_head(k, H);
  v = for_each_query_head(v, H);
  // No token at all, as at a depth of prediction that no sequence reaches: still in the graph.
  if (layout.runs.empty()) return at::cat({v, q, k}, 3).narrow(3, 0, v.size(3));
  if (layout.one_run_a_row) return causal(q, k, v, scale).contiguous();
  std::vector<at::Tensor> out;
  for (const auto& run : layout.runs) {
    const auto tokens = [&](const at::Tensor& x) {
      return x.narrow(0, run.row, 1).narrow(1, run.first, run.count);
    };
    out.push_back(causal(tokens(q), tokens(k), tokens(v), scale).squeeze(0));
  }
  return at::cat(out).view({B, S, H, v.size(3)});
}

bool has_decode_kernel(const at::Tensor& like, int64_t latent_dim, int64_t rope_dim) {
  const auto* kernels = device_kernels(like);
  return kernels && kernels->decodes(latent_dim, rope_dim);
}

namespace {

/// int64 [T, longest]: the cache row of each token that a token sees, -1 beyond.
at::Tensor visible_rows(const DecodeLayout& layout) {
  const int64_t T = layout.position.size(0), longest = layout.longest;
  const int64_t* span = layout.spans.const_data_ptr<int64_t>();
  const int64_t* first = layout.first_span.const_data_ptr<int64_t>();
  const int64_t* position = layout.position.const_data_ptr<int64_t>();
  at::Tensor rows = at::full({T, longest}, -1, at::kLong);
  for (int64_t t = 0; t < T; ++t) {
    int64_t* const begin = rows.data_ptr<int64_t>() + t * longest;
    int64_t* out = begin;
    for (int64_t s = first[t]; s < first[t + 1]; ++s)
      for (int64_t i = 0; i < span[2 * s + 1]; ++i) *out++ = span[2 * s] + i;
    COHORT_CHECK(out - begin == position[t] + 1,
                 "decode: token {} at position {} sees {} rows",
                 t,
                 position[t],
                 out - begin);
  }
  return rows;
}

}  // namespace

void prepare(DecodeLayout& layout, at::Device device, bool for_kernel) {
  const int64_t T = layout.position.size(0);
  const int64_t* position = layout.position.const_data_ptr<int64_t>();
  layout.longest = 0;
  for (int64_t t = 0; t < T; ++t) layout.longest = std::max(layout.longest, position[t] + 1);
  const auto moved = [&](const at::Tensor& x) { return x.to(device, /*non_blocking=*/true); };
  layout.device_position = moved(layout.position);
  layout.device_slot = moved(layout.slot);
  if (for_kernel) {
    layout.device_spans = moved(layout.spans);
    layout.device_first_span = moved(layout.first_span);
  } else {
    layout.device_rows = moved(visible_rows(layout));
  }
}

namespace {

/// x [T, heads, dim] rotated by position, in the dtype of sums.
at::Tensor at_positions(const at::Tensor& x, const Rotation& rotation, const DecodeLayout& layout) {
  if (!rotation.cos.defined()) return x.to(sum_dtype(x.scalar_type()));
  const auto of_tokens = [&](const at::Tensor& table) {
    return table.index_select(0, layout.device_position).unsqueeze(1);
  };
  return rotated(x, of_tokens(rotation.cos), of_tokens(rotation.sin), rotation.interleave);
}

/// MLA's absorbed queries over its cache of latents.
at::Tensor decode_by_kernel(const at::Tensor& turned,
                            const DecodeLayout& layout,
                            int64_t latent_dim,
                            double scale,
                            const at::Tensor& cache) {
  const auto* kernels = device_kernels(cache);
  const at::Tensor q = turned.to(cache.scalar_type()).contiguous();
  const kernels::DeviceDecoding problem{q.size(0),
                                        q.size(1),
                                        latent_dim,
                                        q.size(2) - latent_dim,
                                        cache.size(1),
                                        layout.device_spans.const_data_ptr<int64_t>(),
                                        layout.device_first_span.const_data_ptr<int64_t>(),
                                        layout.device_position.const_data_ptr<int64_t>(),
                                        layout.longest,
                                        static_cast<float>(scale)};
  at::Tensor out = at::empty({q.size(0), q.size(1), latent_dim}, q.options());
  const at::Tensor workspace = device_workspace(kernels->attention_decode_workspace(problem), q);
  kernels->attention_decode(device_element(q),
                            problem,
                            q.data_ptr(),
                            cache.data_ptr(),
                            out.data_ptr(),
                            workspace.data_ptr(),
                            device_stream(q));
  return out;
}

}  // namespace

void cache_tokens(const at::Tensor& x,
                  const Rotation& rotation,
                  const DecodeLayout& layout,
                  int64_t at,
                  const at::Tensor& cache) {
  const auto rows = at_positions(x, rotation, layout).to(cache.scalar_type()).flatten(1);
  cache.narrow(1, at, rows.size(1)).index_copy_(0, layout.device_slot, rows);
}

at::Tensor decode(const at::Tensor& q,
                  const Rotation& rotation,
                  const DecodeLayout& layout,
                  const CachedHeads& heads,
                  double scale,
                  const at::Tensor& cache) {
  const int64_t T = q.size(0), G = heads.kv_heads, k_dim = q.size(2);
  if (T == 0) return at::empty({0, q.size(1), heads.v_dim}, q.options());
  const auto rotated_q = at_positions(q, rotation, layout);
  if (layout.device_spans.defined())
    return decode_by_kernel(rotated_q, layout, heads.v_dim, scale, cache).to(q.scalar_type());
  const int64_t L = layout.device_rows.size(1), row = cache.size(1);
  const auto turned = rotated_q.unflatten(1, {G, q.size(1) / G});
  const int64_t chunk = std::max<int64_t>(1, kGathered / std::max<int64_t>(1, L * row));
  std::vector<at::Tensor> out;
  for (int64_t begin = 0; begin < T; begin += chunk) {
    const int64_t n = std::min(chunk, T - begin);
    const auto visible = layout.device_rows.narrow(0, begin, n);
    const auto seen =
        cache.index_select(0, visible.clamp_min(0).flatten()).view({n, L, row});  // [n, L, row]
    const auto k = seen.narrow(2, 0, G * k_dim).unflatten(2, {G, k_dim});
    const auto v = seen.narrow(2, heads.v_offset, G * heads.v_dim).unflatten(2, {G, heads.v_dim});
    auto scores = at::matmul(turned.narrow(0, begin, n), k.permute({0, 2, 3, 1})) * scale;
    scores.masked_fill_(visible.lt(0).view({n, 1, 1, L}), -std::numeric_limits<double>::infinity());
    const auto sums = at::matmul(scores.softmax(-1), v.permute({0, 2, 1, 3}));  // [n, G, H / G, v]
    out.push_back(sums.flatten(1, 2).to(q.scalar_type()));
  }
  return at::cat(out);
}

}  // namespace cohort::core::device
