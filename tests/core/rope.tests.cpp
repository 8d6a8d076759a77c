#include "core/nn/rope.h"

#include "core/base/error.h"
#include "core/io/safetensors.h"
#include "tests/catch.h"
#include "tests/core/gradients.h"
#include "tests/fixtures.h"

using namespace cohort;
using namespace cohort::tests;

namespace {

using Tensors = std::map<std::string, at::Tensor>;

double number(const Tensors& f, const std::string& name, double otherwise = 0) {
  return f.count(name) ? f.at(name).item<double>() : otherwise;
}

core::RopeConfig config_of(const Tensors& f) {
  core::RopeConfig config;
  config.rope_type = f.count("factor") ? "yarn" : "default";
  config.rope_theta = number(f, "theta");
  config.factor = number(f, "factor", 1);
  config.original_max_position_embeddings = static_cast<int64_t>(number(f, "original_max"));
  config.beta_fast = number(f, "beta_fast", 32);
  config.beta_slow = number(f, "beta_slow", 1);
  config.mscale = number(f, "mscale");
  config.mscale_all_dim = number(f, "mscale_all_dim");
  return config;
}

/// Hugging Face's order of an interleaved result: even channels, then odd ones.
at::Tensor even_then_odd(const at::Tensor& x) {
  return x.unflatten(-1, {x.size(-1) / 2, 2}).transpose(-1, -2).flatten(-2);
}

}  // namespace

TEST_CASE("Rotation, frequencies and gradients equal the reference", "[core-rope][parity]") {
  int found = 0;
  for (const auto& path : cases("ops")) {
    if (path.filename().string().rfind("rope_", 0) != 0) continue;
    ++found;
    INFO(path.string());
    const auto f = core::read_safetensors(path.string());
    const auto config = config_of(f);
    const int64_t dim = f.at("dim").item<int64_t>();
    const auto frequencies = core::rope_frequencies(config, dim);
    CHECK(error_of(frequencies.inv_freq, f.at("inv_freq")) < 1e-14);
    CHECK(frequencies.attention_factor == Approx(number(f, "attention_scaling")).epsilon(1e-14));
    CHECK(frequencies.softmax_factor == Approx(number(f, "softmax_mscale")).epsilon(1e-14));

    const auto& positions = f.at("positions");
    auto table = core::rope_table(config, dim, positions.max().item<int64_t>() + 1, at::kDouble);
    table.cos = table.cos.index_select(0, positions);
    table.sin = table.sin.index_select(0, positions);
    const auto x = leaves({f.at("x").transpose(1, 2)});
    const auto d_y = f.at("d_y").transpose(1, 2);
    const Function half = [&](const auto& in) { return core::apply_rope(in[0], table, false); };
    CHECK(error_of(half(x), f.at("half").transpose(1, 2)) < 1e-12);
    CHECK(error_of(gradients_of(half, x, d_y)[0], f.at("d_half").transpose(1, 2)) < 1e-12);
    const Function pairs = [&](const auto& in) {
      return even_then_odd(core::apply_rope(in[0], table, true));
    };
    CHECK(error_of(pairs(x), f.at("interleaved").transpose(1, 2)) < 1e-12);
    CHECK(error_of(gradients_of(pairs, x, d_y)[0], f.at("d_interleaved").transpose(1, 2)) < 1e-12);
  }
  REQUIRE(found > 0);
}

TEST_CASE("Rotated products depend on the distance alone", "[core-rope]") {
  const int64_t dim = 12, length = 40;
  const auto table = core::rope_table({}, dim, length, at::kDouble);
  const auto q = random({1, 1, 1, dim}), k = random({1, 1, 1, dim});
  for (bool interleave : {false, true}) {
    const auto rq = core::apply_rope(q.expand({1, length, 1, dim}), table, interleave);
    const auto rk = core::apply_rope(k.expand({1, length, 1, dim}), table, interleave);
    const auto products = (rq.narrow(1, 5, 35) * rk.narrow(1, 0, 35)).sum(-1);
    CHECK(error_of(products, products.narrow(1, 0, 1).expand_as(products)) < 1e-12);
  }
}

TEST_CASE("Rotation in fp32 and bf16 stays near fp64", "[core-rope]") {
  for (const auto& [dtype, bound] : {std::pair{at::kFloat, 1e-6}, {at::kBFloat16, 8e-3}})
    for (bool interleave : {false, true}) {
      const auto x = random({2, 9, 3, 10}, dtype);
      const auto table = core::rope_table({}, 10, 16, dtype),
                 table64 = core::rope_table({}, 10, 16, at::kDouble);
      CHECK(table.cos.scalar_type() == at::kFloat);
      const auto y = core::apply_rope(x, table, interleave);
      CHECK(y.scalar_type() == dtype);
      CHECK(error_of(y, core::apply_rope(x.to(at::kDouble), table64, interleave)) < bound);
    }
}

TEST_CASE("Rotation reads strided heads and S = 1", "[core-rope]") {
  const auto table = core::rope_table({}, 6, 8, at::kDouble);
  const auto slice = random({2, 7, 3, 10}).narrow(-1, 4, 6);
  CHECK(identical(core::apply_rope(slice, table, true),
                  core::apply_rope(slice.contiguous(), table, true)));
  const auto first = slice.narrow(1, 0, 1);
  CHECK(error_of(core::apply_rope(first, table, false), first) == 0);  // position 0 does not turn
}

TEST_CASE("Rope settings that make no rotation are refused by name", "[core-rope]") {
  core::RopeConfig config;
  CHECK_THROWS_AS(core::rope_frequencies(config, 7), InputError);
  config.rope_theta = 0;
  CHECK_THROWS_AS(core::rope_frequencies(config, 8), InputError);
  config = {};
  config.rope_type = "llama3";
  CHECK_THROWS_WITH(core::rope_frequencies(config, 8), Catch::Contains("llama3"));
  config = {};
  config.rope_type = "yarn";
  config.factor = 4;
  CHECK_THROWS_WITH(core::rope_frequencies(config, 8),
                    Catch::Contains("original_max_position_embeddings"));
  config.factor = 0.5;
  CHECK_THROWS_WITH(core::rope_frequencies(config, 8), Catch::Contains("factor"));
  CHECK_THROWS_AS(
      core::apply_rope(random({1, 9, 1, 8}), core::rope_table({}, 8, 4, at::kDouble), true), Error);
}
