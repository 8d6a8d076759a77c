#include "core/nn/device/head_losses.h"

#include <algorithm>

#include "core/nn/kernel_types.h"
#include "core/nn/product.h"

namespace cohort::core::device {
namespace {

/// Logits held at a time: rows enough to fill a GPU, at most 128 MB of them in fp32.
constexpr int64_t kLogits = int64_t{1} << 25;
constexpr int64_t kLeastRows = 256;

int64_t chunk_rows(int64_t rows, int64_t classes) {
  return std::min(rows, std::max(kLogits / classes, kLeastRows));
}

at::Tensor sums_like(const at::Tensor& head) {
  return at::zeros(head.sizes(), head.options().dtype(sum_dtype(head.scalar_type())));
}

/// Adds a chunk's part of both gradients, given that of its logits.
void add_gradients(const at::Tensor& d_logits,
                   const at::Tensor& x_rows,
                   const at::Tensor& head,
                   at::Tensor d_x_rows,
                   at::Tensor& d_head) {
  if (d_x_rows.defined()) product(kernels::GemmForm::kNN, d_logits, head, d_x_rows, false);
  if (d_head.defined()) product(kernels::GemmForm::kTN, d_logits, x_rows, d_head, true);
}

at::Tensor rows_of(const at::Tensor& t, int64_t begin, int64_t count) {
  return t.defined() ? t.narrow(0, begin, count) : t;
}

}  // namespace

CrossEntropy cross_entropy(const at::Tensor& x,
                           const at::Tensor& head,
                           const at::Tensor& target,
                           bool want_x,
                           bool want_head) {
  const int64_t rows = x.size(0), classes = head.size(0), chunk = chunk_rows(rows, classes);
  const auto precise = sum_dtype(x.scalar_type());
  CrossEntropy e{at::zeros({}, x.options().dtype(at::kDouble)), {}, {}};
  if (want_x) e.d_x = at::empty_like(x);
  if (want_head) e.d_head = sums_like(head);
  for (int64_t begin = 0; begin < rows; begin += chunk) {
    const int64_t count = std::min(chunk, rows - begin);
    const auto x_rows = x.narrow(0, begin, count);
    const auto wanted = target.narrow(0, begin, count).unsqueeze(1);
    auto logits = at::empty({count, classes}, x.options());
    product(kernels::GemmForm::kNT, x_rows, head, logits, false);
    auto log_p = at::log_softmax(logits, 1, precise);
    e.loss.sub_(log_p.gather(1, wanted).sum(at::kDouble));
    if (!want_x && !want_head) continue;
    log_p.exp_().scatter_add_(1, wanted, at::full({}, -1, log_p.options()).expand({count, 1}));
    add_gradients(log_p.to(x.scalar_type()), x_rows, head, rows_of(e.d_x, begin, count), e.d_head);
  }
  return e;
}

namespace {

/// Calls each(begin, count, d, log_sum) for chunks of logits: d = (l - largest) / temperature and
/// log sum e^d.
template <class Each>
void each_chunk(const HeadRows& in, const Each& each) {
  const int64_t rows = in.x.size(0), classes = in.head.size(0), chunk = chunk_rows(rows, classes);
  const auto precise = sum_dtype(in.x.scalar_type());
  for (int64_t begin = 0; begin < rows; begin += chunk) {
    const int64_t count = std::min(chunk, rows - begin);
    auto logits = at::empty({count, classes}, in.x.options());
    product(kernels::GemmForm::kNT, in.x.narrow(0, begin, count), in.head, logits, false);
    const auto wide = logits.to(precise);
    // The difference is taken before it is scaled, as in kernels/cpu/token_log_probs.h.
    const auto d = (wide - wide.amax(1, /*keepdim=*/true)) * in.inverse_temperature;
    each(begin, count, d, d.logsumexp(1, /*keepdim=*/true));
  }
}

}  // namespace

void token_log_probs(const HeadRows& in, at::Tensor& log_prob, at::Tensor& entropy) {
  each_chunk(in, [&](int64_t begin, int64_t count, const at::Tensor& d, const at::Tensor& log_sum) {
    const auto wanted = in.target.narrow(0, begin, count).unsqueeze(1);
    log_prob.narrow(0, begin, count).copy_((d.gather(1, wanted) - log_sum).squeeze(1));
    const auto p = (d - log_sum).exp();
    const auto terms = at::where(p.eq(0), at::zeros({}, p.options()), p * d);  // 0 x -inf is 0
    entropy.narrow(0, begin, count).copy_(log_sum.squeeze(1) - terms.sum(1));
  });
}

void token_log_probs_backward(const HeadRows& in,
                              const at::Tensor& coefficient,
                              bool want_x,
                              bool want_head,
                              at::Tensor& d_x,
                              at::Tensor& d_head) {
  if (want_x) d_x = at::empty_like(in.x);
  if (want_head) d_head = sums_like(in.head);
  each_chunk(in, [&](int64_t begin, int64_t count, const at::Tensor& d, const at::Tensor& log_sum) {
    const auto factor = (coefficient.narrow(0, begin, count) * in.inverse_temperature)
                            .to(d.scalar_type())
                            .unsqueeze(1);
    auto d_logits = (d - log_sum).exp_().mul_(-factor);
    d_logits.scatter_add_(1, in.target.narrow(0, begin, count).unsqueeze(1), factor);
    add_gradients(d_logits.to(in.x.scalar_type()),
                  in.x.narrow(0, begin, count),
                  in.head,
                  rows_of(d_x, begin, count),
                  d_head);
  });
}

}  // namespace cohort::core::device
