#include "core/nn/rms_norm.h"

#include "core/base/error.h"
#include "core/io/safetensors.h"
#include "tests/catch.h"
#include "tests/core/gradients.h"
#include "tests/fixtures.h"

using namespace cohort;
using namespace cohort::tests;

namespace {

at::Tensor reference(const at::Tensor& x, const at::Tensor& weight, double eps) {
  return weight * (x * at::rsqrt(x.pow(2).mean(-1, true) + eps));
}

}  // namespace

TEST_CASE("RMSNorm and its gradients equal the reference", "[core-rms_norm][parity]") {
  int found = 0;
  for (const auto& path : cases("ops")) {
    if (path.filename().string().rfind("rmsnorm", 0) != 0) continue;
    ++found;
    INFO(path.string());
    auto f = core::read_safetensors(path.string());
    const double eps = f.at("eps").item<double>();
    const auto inputs = leaves({f.at("x"), f.at("weight")});
    const Function norm = [&](const auto& in) { return core::rms_norm(in[0], in[1], eps); };
    CHECK(error_of(norm(inputs), f.at("y")) < 1e-13);
    const auto gradients = gradients_of(norm, inputs, f.at("d_y"));
    CHECK(error_of(gradients[0], f.at("d_x")) < 1e-13);
    CHECK(error_of(gradients[1], f.at("d_weight")) < 1e-13);
  }
  REQUIRE(found > 0);
}

TEST_CASE("RMSNorm's gradients equal finite differences", "[core-rms_norm]") {
  const Function norm = [](const auto& in) { return core::rms_norm(in[0], in[1], 1e-5); };
  for (int64_t dim : {1, 3, 8, 19})
    check_finite_differences(norm, {random({5, dim}), random({dim})}, 1e-7);
}

TEST_CASE("RMSNorm in fp32 and bf16 stays near fp64", "[core-rms_norm]") {
  const Function norm = [](const auto& in) { return core::rms_norm(in[0], in[1], 1e-6); };
  const Function exact = [](const auto& in) { return reference(in[0], in[1], 1e-6); };
  for (const auto& [dtype, bound] : {std::pair{at::kFloat, 1e-6}, {at::kBFloat16, 8e-3}})
    for (const auto& shape :
         std::vector<std::vector<int64_t>>{{1, 5}, {3, 2, 16}, {200, 37}, {70, 256}, {0, 4}}) {
      INFO(at::toString(dtype) << ", last dim " << shape.back());
      const auto x = random(shape, dtype), w = random({shape.back()}, dtype),
                 d_y = random(shape, dtype);
      const auto in = leaves({x, w}, dtype), in64 = leaves({x, w});
      CHECK(norm(in).scalar_type() == dtype);
      CHECK(error_of(norm(in), exact(in64)) < bound);
      const auto g = gradients_of(norm, in, d_y),
                 g64 = gradients_of(exact, in64, d_y.to(at::kDouble));
      CHECK(error_of(g[0], g64[0]) < bound);
      CHECK(error_of(g[1], g64[1]) < bound);
    }
}

TEST_CASE("RMSNorm reads a slice of columns in place", "[core-rms_norm]") {
  const auto whole = random({6, 5, 30}, at::kFloat), w = random({11}, at::kFloat);
  const auto slice = whole.narrow(-1, 7, 11);
  CHECK(identical(core::rms_norm(slice, w, 1e-6), core::rms_norm(slice.contiguous(), w, 1e-6)));
  const auto crossed = whole.transpose(0, 1).narrow(-1, 7, 11);
  CHECK(identical(core::rms_norm(crossed, w, 1e-6), core::rms_norm(crossed.contiguous(), w, 1e-6)));
}

TEST_CASE("RMSNorm's results do not depend on the number of threads or the batch",
          "[core-rms_norm]") {
  const Function norm = [](const auto& in) { return core::rms_norm(in[0], in[1], 1e-6); };
  const auto x = random({1000, 100}, at::kFloat), w = random({100}, at::kFloat),
             d_y = random({1000, 100}, at::kFloat);
  std::vector<at::Tensor> first;
  for (int threads : {1, 2, 3}) {
    const Threads limit(threads);
    auto in = leaves({x, w}, at::kFloat);
    auto now = gradients_of(norm, in, d_y);
    now.push_back(norm(in).detach());
    if (first.empty()) first = now;
    for (size_t i = 0; i < now.size(); ++i) CHECK(identical(now[i], first[i]));
  }
  CHECK(identical(core::rms_norm(x.narrow(0, 613, 1), w, 1e-6), first[2].narrow(0, 613, 1)));
}

TEST_CASE("RMSNorm refuses shapes and dtypes that do not fit", "[core-rms_norm]") {
  CHECK_THROWS_AS(core::rms_norm(random({2, 3}), random({4}), 1e-6), Error);
  CHECK_THROWS_AS(core::rms_norm(random({2, 3}), random({3}, at::kFloat), 1e-6), Error);
  CHECK_THROWS_AS(core::rms_norm(random({2, 3}, at::kHalf), random({3}, at::kHalf), 1e-6), Error);
}
