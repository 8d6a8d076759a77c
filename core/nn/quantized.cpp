#include "core/nn/quantized.h"

#include <limits>

#include "core/base/error.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/quantized.h"

namespace cohort::core {
namespace {

/// The matrices of one weight, behind each other.
struct Quantized final : c10::BackendMeta {
  kernels::QuantizedShape shape;  ///< Of each.
  int64_t matrices = 1;
  at::Tensor data, scale, offset;

  kernels::QuantizedMatrix matrix(int64_t i) const {
    return {shape,
            data.data_ptr<uint8_t>() + i * shape.data_bytes(),
            scale.data_ptr<float>() + i * shape.num_scales(),
            offset.defined() ? offset.data_ptr<float>() + i * shape.num_scales() : nullptr};
  }
};

const Quantized* quantized(const at::Tensor& weight) {
  return dynamic_cast<const Quantized*>(weight.unsafeGetTensorImpl()->get_backend_meta());
}

/// The weight of a caller that knows it is quantised.
const Quantized& quantized_or_throw(const at::Tensor& weight) {
  const Quantized* const q = quantized(weight);
  COHORT_CHECK(q, "a weight of shape {} is not quantised", fmt::join(weight.sizes(), "x"));
  return *q;
}

c10::intrusive_ptr<Quantized> make_quantized(const at::Tensor& weight,
                                             const QuantizeOptions& options) {
  auto q = c10::make_intrusive<Quantized>();
  q->shape = {weight.size(-2), weight.size(-1), options.group, options.bits};
  q->matrices = weight.dim() == 3 ? weight.size(0) : 1;
  q->data = at::empty({q->matrices * q->shape.data_bytes()}, at::kByte);
  q->scale = at::empty({q->matrices * q->shape.num_scales()}, at::kFloat);
  if (options.bits == 4) q->offset = at::empty_like(q->scale);
  const at::Tensor stack = weight.detach().reshape({q->matrices, q->shape.n, q->shape.k});
  for (int64_t i = 0; i < q->matrices; ++i) {  // one by one: bf16 becomes fp32 on the way
    const at::Tensor one = stack[i].to(at::kFloat).contiguous();
    kernels::quantize(one.const_data_ptr<float>(), q->shape.k, q->matrix(i));
  }
  return q;
}

}  // namespace

void quantize_weight(at::Tensor weight, const QuantizeOptions& options) {
  at::NoGradGuard no_grad;
  COHORT_CHECK((options.bits == 8 || options.bits == 4) && options.group >= 1,
               "weights of {} bits in groups of {}",
               options.bits,
               options.group);
  COHORT_CHECK(weight.is_cpu() && (weight.dim() == 2 || weight.dim() == 3) && weight.numel() > 0 &&
                   (weight.scalar_type() == at::kFloat || weight.scalar_type() == at::kBFloat16),
               "a weight of shape {} and type {} cannot be quantised",
               fmt::join(weight.sizes(), "x"),
               at::toString(weight.scalar_type()));
  COHORT_CHECK(!quantized(weight), "a weight is quantised already");
  COHORT_CHECK(at::isfinite(weight.sum()).item<bool>() || at::isfinite(weight).all().item<bool>(),
               "a weight of shape {} holds values that are not finite",
               fmt::join(weight.sizes(), "x"));
  auto q = make_quantized(weight, options);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const at::Tensor placeholder = at::full({1}, nan, weight.options()).expand(weight.sizes());
  placeholder.unsafeGetTensorImpl()->set_backend_meta(std::move(q));
  weight.set_requires_grad(false);
  weight.set_data(placeholder);
  COHORT_CHECK(quantized(weight), "the tensor lost its quantised weight");
}

bool is_quantized(const at::Tensor& weight) { return quantized(weight) != nullptr; }

at::Tensor dequantized(const at::Tensor& weight) {
  const Quantized* const q = quantized(weight);
  if (!q) return weight.detach().to(at::kFloat);
  const at::Tensor out = at::empty(weight.sizes(), at::kFloat);
  const int64_t n = q->shape.n, k = q->shape.k;
  float* const to = out.data_ptr<float>();
  kernels::parallel_for(q->matrices * n, 16, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row)
      kernels::dequantize_row(q->matrix(row / n), row % n, to + row * k);
  });
  return out;
}

int64_t weight_bytes(const at::Tensor& weight) {
  const Quantized* const q = quantized(weight);
  if (!q) return static_cast<int64_t>(weight.nbytes());
  const size_t offsets = q->offset.defined() ? q->offset.nbytes() : 0;
  return static_cast<int64_t>(q->data.nbytes() + q->scale.nbytes() + offsets);
}

at::Tensor embedding(const at::Tensor& weight, const at::Tensor& ids) {
  const Quantized* const q = quantized(weight);
  if (!q) return at::embedding(weight, ids);
  const at::Tensor flat = ids.reshape({-1}).contiguous();
  const int64_t* const id = flat.const_data_ptr<int64_t>();
  const int64_t n = q->shape.n, k = q->shape.k;
  const at::Tensor out = at::empty({flat.size(0), k}, at::kFloat);
  for (int64_t i = 0; i < flat.size(0); ++i)
    COHORT_CHECK(id[i] >= 0 && id[i] < n, "token {} is not in 0 .. {}", id[i], n - 1);
  kernels::parallel_for(flat.size(0), 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      kernels::dequantize_row(q->matrix(0), id[i], out.data_ptr<float>() + i * k);
  });
  auto shape = ids.sizes().vec();
  shape.push_back(k);
  return out.view(shape).to(weight.scalar_type());
}

at::Tensor quantized_linear(const at::Tensor& x,
                            const at::Tensor& weight,
                            const std::vector<int64_t>& counts) {
  const Quantized& q = quantized_or_throw(weight);
  const at::Tensor rows = x.reshape({-1, q.shape.k}).to(at::kFloat).contiguous();
  const at::Tensor y = at::empty({rows.size(0), q.shape.n}, at::kFloat);
  std::vector<kernels::QuantizedProduct> products;
  int64_t row = 0;
  for (size_t i = 0; i < counts.size(); ++i) {
    products.push_back({q.matrix(static_cast<int64_t>(i)),
                        counts[i],
                        rows.const_data_ptr<float>() + row * q.shape.k,
                        q.shape.k,
                        y.data_ptr<float>() + row * q.shape.n,
                        q.shape.n});
    row += counts[i];
  }
  kernels::quantized_products(products.data(), static_cast<int64_t>(products.size()));
  auto shape = x.sizes().vec();
  shape.back() = q.shape.n;
  return y.view(shape).to(x.scalar_type());
}

}  // namespace cohort::core
