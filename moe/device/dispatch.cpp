#include "moe/device/dispatch.h"

#include "core/base/device_kernels.h"
#include "core/nn/kernel_types.h"

namespace cohort::moe::device {
namespace {

using core::device_element;
using core::device_kernels;
using core::device_stream;
using core::elements;

/// The rows of each token [T, K, D] in the dtype of sums.
at::Tensor rows_of_tokens(const at::Tensor& pairs,
                          const at::Tensor& place_of,
                          int64_t T,
                          int64_t K) {
  return pairs.index_select(0, place_of)
      .view({T, K, pairs.size(1)})
      .to(core::sum_dtype(pairs.scalar_type()));
}

/// Experts that sort_pairs can tell apart.
constexpr int64_t kMostExperts = 1024;

}  // namespace

SortedPairs sort_pairs(const at::Tensor& expert_TK, int64_t num_experts) {
  const at::Tensor flat = expert_TK.reshape({-1}).contiguous();
  // Any floating tensor there tells whether there are kernels.
  const auto* kernels = device_kernels(at::empty({0}, flat.options().dtype(at::kFloat)));
  if (kernels && flat.numel() > 0 && num_experts <= kMostExperts) {
    SortedPairs sorted{
        at::empty_like(flat), at::empty_like(flat), at::empty({num_experts}, flat.options())};
    const at::Tensor workspace =
        core::device_workspace(kernels->sort_pairs_workspace(flat.numel(), num_experts), flat);
    kernels->sort_pairs(elements<int64_t>(flat),
                        flat.numel(),
                        num_experts,
                        elements<int64_t>(sorted.load_E),
                        elements<int64_t>(sorted.pair_at),
                        elements<int64_t>(sorted.place_of),
                        workspace.data_ptr(),
                        device_stream(flat));
    return sorted;
  }
  SortedPairs sorted;
  sorted.pair_at = std::get<1>(flat.sort(/*stable=*/true, /*dim=*/0, /*descending=*/false));
  sorted.place_of =
      at::empty_like(flat).scatter_(0, sorted.pair_at, at::arange(flat.numel(), flat.options()));
  sorted.load_E =
      at::zeros({num_experts}, flat.options()).scatter_add_(0, flat, at::ones_like(flat));
  return sorted;
}

at::Tensor gather(const at::Tensor& rows, const at::Tensor& index, int64_t divisor) {
  const auto* kernels = device_kernels(rows);
  if (!kernels) return rows.index_select(0, divisor == 1 ? index : index.floor_divide(divisor));
  at::Tensor result = at::empty({index.numel(), rows.size(1)}, rows.options());
  if (result.numel() > 0)
    kernels->gather_rows(device_element(rows),
                         rows.data_ptr(),
                         elements<int64_t>(index),
                         divisor,
                         index.numel(),
                         rows.size(1),
                         result.data_ptr(),
                         device_stream(rows));
  return result;
}

at::Tensor scatter(const at::Tensor& rows, const at::Tensor& index) {
  at::Tensor result = at::empty_like(rows);
  const auto* kernels = device_kernels(rows);
  if (!kernels) return result.index_copy_(0, index, rows);
  if (result.numel() > 0)
    kernels->scatter_rows(device_element(rows),
                          rows.data_ptr(),
                          elements<int64_t>(index),
                          rows.size(0),
                          rows.size(1),
                          result.data_ptr(),
                          device_stream(rows));
  return result;
}

at::Tensor combine(const at::Tensor& pairs,
                   const at::Tensor& gate,
                   const at::Tensor& place_of,
                   int64_t T,
                   int64_t K) {
  const auto* kernels = device_kernels(pairs);
  if (!kernels) {
    const at::Tensor rows = rows_of_tokens(pairs, place_of, T, K);
    return (gate.defined() ? rows * gate.unsqueeze(-1) : rows).sum(1).to(pairs.scalar_type());
  }
  at::Tensor result = at::empty({T, pairs.size(1)}, pairs.options());
  if (result.numel() > 0)
    kernels->combine_rows(device_element(pairs),
                          pairs.data_ptr(),
                          elements<int64_t>(place_of),
                          elements<float>(gate),
                          T,
                          K,
                          pairs.size(1),
                          result.data_ptr(),
                          device_stream(pairs));
  return result;
}

CombineGradients combine_backward(const at::Tensor& d_out,
                                  const at::Tensor& pairs,
                                  const at::Tensor& gate,
                                  const at::Tensor& place_of) {
  const int64_t T = gate.size(0), K = gate.size(1);
  if (const auto* kernels = device_kernels(pairs)) {
    CombineGradients result{at::empty_like(pairs), at::empty_like(gate)};
    if (T > 0)
      kernels->combine_rows_backward(device_element(pairs),
                                     d_out.data_ptr(),
                                     pairs.data_ptr(),
                                     elements<int64_t>(place_of),
                                     elements<float>(gate),
                                     T,
                                     K,
                                     pairs.size(1),
                                     result.d_pairs.data_ptr(),
                                     elements<float>(result.d_gate),
                                     device_stream(pairs));
    return result;
  }
  const at::Tensor d_sum = d_out.to(gate.scalar_type()).unsqueeze(1);
  const at::Tensor d_rows = (gate.unsqueeze(-1) * d_sum).to(pairs.scalar_type());
  return {at::empty_like(pairs).index_copy_(0, place_of, d_rows.flatten(0, 1)),
          (rows_of_tokens(pairs, place_of, T, K) * d_sum).sum(-1)};
}

}  // namespace cohort::moe::device
