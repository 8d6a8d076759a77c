#include "core/nn/swiglu.h"

#include "core/base/error.h"
#include "tests/catch.h"
#include "tests/core/gradients.h"

using namespace cohort;
using namespace cohort::tests;

namespace {

const Function ours = [](const auto& in) { return core::swiglu(in[0]); };
const Function reference = [](const auto& in) {
  const auto halves = in[0].chunk(2, -1);
  return at::silu(halves[0]) * halves[1];
};

}  // namespace

TEST_CASE("SwiGLU equals silu(gate) * up", "[core-swiglu]") {
  for (const auto& [dtype, bound] :
       {std::pair{at::kDouble, 1e-14}, {at::kFloat, 1e-6}, {at::kBFloat16, 8e-3}})
    for (const auto& shape :
         std::vector<std::vector<int64_t>>{{1, 2}, {3, 2, 16}, {40, 74}, {70, 352}, {0, 4}}) {
      INFO(at::toString(dtype) << ", last dim " << shape.back());
      const auto x = random(shape, dtype);
      auto half = shape;
      half.back() /= 2;
      const auto d_y = random(half, dtype);
      const auto in = leaves({x}, dtype), in64 = leaves({x});
      CHECK(ours(in).scalar_type() == dtype);
      CHECK(error_of(ours(in), reference(in64)) < bound);
      CHECK(error_of(gradients_of(ours, in, d_y)[0],
                     gradients_of(reference, in64, d_y.to(at::kDouble))[0]) < bound);
    }
}

TEST_CASE("SwiGLU's gradient equals finite differences", "[core-swiglu]") {
  check_finite_differences(ours, {random({7, 22})}, 1e-7);
}

TEST_CASE("SwiGLU saturates without overflow", "[core-swiglu]") {
  for (auto dtype : {at::kFloat, at::kDouble}) {
    const auto x =
        at::tensor({1e4, -1e4, 90.0, -90.0, 3.0, 3.0, 3.0, 3.0}, at::TensorOptions().dtype(dtype))
            .unsqueeze(0);
    const auto in = leaves({x}, dtype);
    CHECK(error_of(ours(in), reference(leaves({x}))) < 1e-6);
    const auto g = gradients_of(ours, in, at::ones({1, 4}))[0];
    CHECK(at::isfinite(g).all().item<bool>());
    CHECK(error_of(g, gradients_of(reference, leaves({x}), at::ones({1, 4}))[0]) < 1e-6);
  }
}

TEST_CASE("SwiGLU carries a NaN on and refuses an odd width", "[core-swiglu]") {
  auto x = random({1, 6}, at::kFloat);
  x[0][1] = std::nan("");
  CHECK(at::isnan(core::swiglu(x))[0][1].item<bool>());
  CHECK_FALSE(at::isnan(core::swiglu(x))[0][0].item<bool>());
  CHECK_THROWS_AS(core::swiglu(random({2, 3})), Error);
}
