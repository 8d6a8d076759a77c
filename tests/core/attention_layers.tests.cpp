#include <set>

#include "core/base/error.h"
#include "core/io/safetensors.h"
#include "core/nn/attention.h"
#include "tests/catch.h"
#include "tests/core/gradients.h"
#include "tests/fixtures.h"

using namespace cohort;
using namespace cohort::tests;

namespace {

using Tensors = std::map<std::string, at::Tensor>;

/// The parts of a layer's parameters by their names, as views of `which` (the values, or
/// gradients).
Tensors parts_of(const core::Attention& layer, bool gradients = false) {
  core::ParameterList parameters;
  layer.collect(parameters);
  Tensors parts;
  for (const auto& p : parameters) {
    const auto flat = (gradients ? p.value.grad() : p.value.detach()).flatten();
    int64_t covered = 0;
    for (const auto& part : p.parts) {
      const int64_t count = c10::multiply_integers(part.shape);
      CHECK(part.offset == covered);
      covered += count;
      parts[part.name] = flat.narrow(0, part.offset, count).view(part.shape);
    }
    CHECK(covered == p.value.numel());
  }
  return parts;
}

core::Initializer initializer(at::ScalarType dtype = at::kDouble) {
  return {5, 0.3, dtype, at::kCPU};
}

core::ModelConfig gqa_config() {
  core::ModelConfig c;
  c.model_type = "qwen3";
  c.hidden_size = 12;
  c.num_attention_heads = 4;
  c.num_key_value_heads = 2;
  c.head_dim = 6;
  c.kv_lora_rank = 0;
  c.rope_interleave = false;
  return c;
}

/// Grouped-query attention from its definition.
at::Tensor gqa_reference(const core::ModelConfig& c,
                         const Tensors& p,
                         const at::Tensor& x,
                         const core::RopeTable& rope) {
  const int64_t B = x.size(0), S = x.size(1), D = c.head_dim,
                group = c.num_attention_heads / c.num_key_value_heads;
  const auto project = [&](const std::string& name, const at::Tensor& in) {
    const auto bias = p.find(name + ".bias");
    auto y = at::matmul(in, p.at(name + ".weight").t());
    return bias == p.end() ? y : y + bias->second;
  };
  const auto heads = [&](const std::string& name) { return project(name, x).view({B, S, -1, D}); };
  const auto turned = [&](at::Tensor y, const std::string& norm) {
    if (c.qk_norm)
      y = p.at(norm + ".weight") * y * at::rsqrt(y.pow(2).mean(-1, true) + c.rms_norm_eps);
    const auto cos = at::cat({rope.cos, rope.cos}, -1).unsqueeze(1),
               sin = at::cat({rope.sin, rope.sin}, -1).unsqueeze(1);
    const auto half = y.chunk(2, -1);
    return y * cos + at::cat({-half[1], half[0]}, -1) * sin;
  };
  const auto q = turned(heads("q_proj"), "q_norm").transpose(1, 2);
  const auto k = turned(heads("k_proj"), "k_norm").repeat_interleave(group, 2).transpose(1, 2);
  const auto v = heads("v_proj").repeat_interleave(group, 2).transpose(1, 2);
  const auto hidden = at::ones({S, S}, at::kBool).triu(1);
  const auto scores = (at::matmul(q, k.transpose(2, 3)) / std::sqrt(static_cast<double>(D)))
                          .masked_fill(hidden, -INFINITY);
  return project("o_proj",
                 at::matmul(at::softmax(scores, -1), v).transpose(1, 2).reshape({B, S, -1}));
}

}  // namespace

TEST_CASE("MLA and its gradients equal the reference", "[core-attention][parity]") {
  int found = 0;
  for (const auto& path : cases("ops")) {
    if (path.filename().string().rfind("mla_", 0) != 0) continue;
    ++found;
    INFO(path.string());
    const auto f = core::read_safetensors(path.string());
    const auto number = [&](const char* name) { return f.at(name).item<int64_t>(); };
    core::ModelConfig c;
    const auto& hidden = f.at("hidden");
    c.hidden_size = hidden.size(2);
    c.num_attention_heads = number("heads");
    c.qk_nope_head_dim = number("nope");
    c.qk_rope_head_dim = number("rope");
    c.v_head_dim = number("v");
    c.kv_lora_rank = number("kv_lora");
    c.q_lora_rank = f.count("w.q_a_proj.weight") ? f.at("w.q_a_proj.weight").size(0) : 0;
    const auto layer = core::make_attention(c, "", initializer());
    CHECK(core::rope_dim(c) == c.qk_rope_head_dim);

    std::set<std::string> names;
    for (auto& [name, value] : parts_of(*layer)) {
      INFO(name);
      REQUIRE(f.count("w." + name));
      REQUIRE(value.sizes() == f.at("w." + name).sizes());
      value.copy_(f.at("w." + name));
      names.insert("w." + name);
    }
    for (const auto& [name, value] : f) CHECK((name.rfind("w.", 0) != 0 || names.count(name)));

    const int64_t half = c.qk_rope_head_dim / 2;
    const core::RopeTable rope{f.at("cos")[0].narrow(-1, 0, half),
                               f.at("sin")[0].narrow(-1, 0, half),
                               f.at("softmax_mscale").item<double>()};
    const auto x = leaves({hidden})[0];
    const auto layout = core::attention_layout(hidden.size(0), hidden.size(1), {});
    const auto out = layer->forward(x, layout, rope);
    const auto valid =
        f.at("mask").unsqueeze(-1).to(at::kDouble);  // right padding: later tokens are seen by none
    CHECK(error_of(out * valid, f.at("out") * valid) < 1e-12);
    torch::autograd::backward({out}, {f.at("d_out")});
    CHECK(error_of(x.grad(), f.at("d_hidden")) < 1e-12);
    for (const auto& [name, gradient] : parts_of(*layer, true)) {
      INFO(name);
      CHECK(error_of(gradient, f.at("d." + name)) < 1e-12);
    }
  }
  REQUIRE(found > 0);
}

TEST_CASE("MLA's biases stand where Hugging Face has them", "[core-attention]") {
  core::ModelConfig c;
  c.hidden_size = 10;
  c.num_attention_heads = 2;
  c.kv_lora_rank = 6;
  c.qk_nope_head_dim = 4;
  c.qk_rope_head_dim = 2;
  c.v_head_dim = 3;
  c.attention_bias = true;
  for (int64_t q_lora : {0, 5}) {
    c.q_lora_rank = q_lora;
    const auto layer = core::make_attention(c, "a.", initializer());
    auto parts = parts_of(*layer);
    CHECK(parts.count("a.q_a_proj.bias") == (q_lora ? 1 : 0));
    CHECK(parts.count("a.kv_a_proj_with_mqa.bias") == 1);
    CHECK(parts.count("a.o_proj.bias") == 1);
    CHECK(parts.count("a.q_proj.bias") + parts.count("a.q_b_proj.bias") +
              parts.count("a.kv_b_proj.bias") ==
          0);
    const auto x = random({1, 5, 10});
    const auto layout = core::attention_layout(1, 5, {});
    const auto rope = core::rope_table({}, 2, 5, at::kDouble);
    const auto without = layer->forward(x, layout, rope).detach();
    parts.at("a.o_proj.bias").fill_(2);
    CHECK(error_of(layer->forward(x, layout, rope), without + 2) < 1e-12);
    // A bias on the latent alone moves values, not queries: it must reach the output.
    parts.at("a.kv_a_proj_with_mqa.bias").fill_(1);
    CHECK(error_of(layer->forward(x, layout, rope), without + 2) > 1e-6);
  }
}

TEST_CASE("GQA and its gradients equal the definition", "[core-attention]") {
  for (const auto& [bias, norm, type] :
       std::vector<std::tuple<bool, bool, std::string>>{{false, false, "qwen3"},
                                                        {true, false, "qwen2"},
                                                        {false, true, "qwen3"},
                                                        {true, true, "qwen3"}}) {
    auto c = gqa_config();
    c.attention_bias = bias;
    c.qk_norm = norm;
    c.model_type = type;
    INFO(type << ", bias " << bias << ", norm " << norm);
    const auto layer = core::make_attention(c, "", initializer());
    CHECK(core::rope_dim(c) == 6);
    auto parts = parts_of(*layer);
    CHECK(parts.count("o_proj.bias") == (bias && type != "qwen2" ? 1 : 0));
    CHECK(parts.count("q_norm.weight") == (norm ? 1 : 0));
    for (auto& [name, value] : parts)
      if (name.find("norm") != std::string::npos || name.find("bias") != std::string::npos)
        value.add_(random(value.sizes()), 0.3);
    Tensors copies;
    for (const auto& [name, value] : parts) copies[name] = leaves({value})[0];

    const auto x = leaves({random({2, 9, 12})})[0], y = leaves({x})[0];
    const auto rope = core::rope_table({}, 6, 9, at::kDouble);
    const auto out = layer->forward(x, core::attention_layout(2, 9, {}), rope);
    const auto expected = gqa_reference(c, copies, y, rope);
    CHECK(error_of(out, expected) < 1e-12);
    const auto d_out = random({2, 9, 12});
    torch::autograd::backward({out}, {d_out});
    torch::autograd::backward({expected}, {d_out});
    CHECK(error_of(x.grad(), y.grad()) < 1e-12);
    for (const auto& [name, gradient] : parts_of(*layer, true)) {
      INFO(name);
      // A bias on keys adds the same to all scores of a query, so its gradient is zero but for
      // rotation.
      CHECK((gradient - copies.at(name).grad()).abs().max().item<double>() < 1e-11);
    }
  }
}

TEST_CASE("Attention layers run in fp32 and bf16 near fp64", "[core-attention]") {
  auto mla = core::ModelConfig();
  mla.hidden_size = 32;
  mla.q_lora_rank = 24;
  auto gqa = gqa_config();
  gqa.hidden_size = 32;
  gqa.qk_norm = true;
  const auto x = random({2, 50, 32}, at::kBFloat16);
  for (const auto& c : {mla, gqa})
    for (const auto& [dtype, bound] : {std::pair{at::kFloat, 1e-5}, {at::kBFloat16, 3e-2}}) {
      const auto layer = core::make_attention(c, "l.", initializer(dtype));
      const auto exact = core::make_attention(c, "l.", initializer());
      const auto values = parts_of(*layer);
      for (auto& [name, value] : parts_of(*exact)) value.copy_(values.at(name));
      const auto layout = core::attention_layout(2, 50, {});
      const auto in = leaves({x}, dtype)[0], in64 = leaves({x})[0];
      const auto out =
          layer->forward(in, layout, core::rope_table(c.rope, core::rope_dim(c), 64, dtype));
      const auto out64 = exact->forward(
          in64, layout, core::rope_table(c.rope, core::rope_dim(c), 64, at::kDouble));
      CHECK(out.scalar_type() == dtype);
      CHECK(error_of(out, out64) < bound);
      torch::autograd::backward({out.sum()});
      torch::autograd::backward({out64.sum()});
      CHECK(error_of(in.grad(), in64.grad()) < 2 * bound);
    }
}

TEST_CASE("Head sizes that make no attention are refused by name", "[core-attention]") {
  auto c = core::ModelConfig();
  c.qk_rope_head_dim = 15;
  CHECK_THROWS_WITH(core::make_attention(c, "", initializer()),
                    Catch::Contains("qk_rope_head_dim"));
  c = gqa_config();
  c.num_key_value_heads = 3;
  CHECK_THROWS_WITH(core::make_attention(c, "", initializer()),
                    Catch::Contains("num_key_value_heads"));
  c = gqa_config();
  c.head_dim = 0;
  c.hidden_size = 13;
  CHECK_THROWS_AS(core::make_attention(c, "", initializer()), InputError);
}
