#include "core/nn/decode_op.h"

#include "core/base/device_branch.h"
#include "core/nn/device/attention.h"
#include "core/nn/kernel_types.h"
#include "kernels/cpu/attention_decode.h"

namespace cohort::core {
namespace {

void check_cache(const at::Tensor& cache, const at::Tensor& x) {
  COHORT_CHECK(cache.dim() == 2 && cache.is_contiguous() && cache.device() == x.device() &&
                   cache.scalar_type() == sum_dtype(x.scalar_type()),
               "decode: the cache is {} {}, not a contiguous matrix of {}",
               fmt::join(cache.sizes(), " x "),
               at::toString(cache.scalar_type()),
               at::toString(sum_dtype(x.scalar_type())));
}

const int64_t* numbers(const at::Tensor& t) { return t.const_data_ptr<int64_t>(); }

int64_t rotating(const Rotation& rotation) {
  return rotation.cos.defined() ? 2 * rotation.cos.size(1) : 0;
}

}  // namespace

void cache_tokens(const at::Tensor& x,
                  const Rotation& rotation,
                  const DecodeLayout& layout,
                  int64_t at,
                  const at::Tensor& cache) {
  check_cache(cache, x);
  const int64_t heads = x.size(1), dim = x.size(2);
  COHORT_CHECK(x.dim() == 3 && at + heads * dim <= cache.size(1) && rotating(rotation) <= dim,
               "decode: {} heads of {} channels from {} on do not fit a row of {}",
               heads,
               dim,
               at,
               cache.size(1));
  if (takes_device_branch(x)) return device::cache_tokens(x, rotation, layout, at, cache);
  const bool rows = x.stride(2) == 1 && x.stride(1) == dim;
  const at::Tensor source = rows ? x : x.contiguous();
  with_kernel_type("decode", x, [&]<class T>(T) {
    kernels::write_cache<T>(elements<const T>(source),
                            source.stride(0),
                            x.size(0),
                            heads,
                            dim,
                            rotating(rotation),
                            rotation.interleave,
                            elements<const kernels::Sum<T>>(rotation.cos),
                            elements<const kernels::Sum<T>>(rotation.sin),
                            numbers(layout.position),
                            numbers(layout.slot),
                            cache.size(1),
                            at,
                            elements<kernels::Sum<T>>(cache));
  });
}

at::Tensor decode_op(const at::Tensor& q,
                     const Rotation& rotation,
                     const DecodeLayout& layout,
                     const CachedHeads& heads,
                     double scale,
                     const at::Tensor& cache) {
  check_cache(cache, q);
  COHORT_CHECK(q.dim() == 3 && q.is_contiguous() && q.size(1) % heads.kv_heads == 0 &&
                   heads.kv_heads * q.size(2) <= cache.size(1) &&
                   heads.v_offset + heads.kv_heads * heads.v_dim <= cache.size(1),
               "decode: queries {} and {} key heads do not fit a cache row of {}",
               fmt::join(q.sizes(), " x "),
               heads.kv_heads,
               cache.size(1));
  if (takes_device_branch(q)) return device::decode(q, rotation, layout, heads, scale, cache);
  at::Tensor out = at::empty({q.size(0), q.size(1), heads.v_dim}, q.options());
  with_kernel_type("decode", q, [&]<class T>(T) {
    kernels::DecodeProblem<T> p;
    p.queries = q.size(0);
    p.heads = q.size(1);
    p.kv_heads = heads.kv_heads;
    p.k_dim = q.size(2);
    p.v_dim = heads.v_dim;
    p.row = cache.size(1);
    p.v_offset = heads.v_offset;
    p.rope_dim = rotating(rotation);
    p.interleave = rotation.interleave;
    p.scale = scale;
    p.cos = elements<const kernels::Sum<T>>(rotation.cos);
    p.sin = elements<const kernels::Sum<T>>(rotation.sin);
    p.position = numbers(layout.position);
    p.spans = reinterpret_cast<const kernels::CacheSpan*>(numbers(layout.spans));
    p.first_span = numbers(layout.first_span);
    p.cache = elements<const kernels::Sum<T>>(cache);
    kernels::attention_decode<T>(p, elements<const T>(q), elements<T>(out));
  });
  return out;
}

}  // namespace cohort::core
