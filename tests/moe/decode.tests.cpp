// Decoding over a cache against the forward pass of training.
#include "core/nn/linear.h"
#include "moe/transformer.h"
#include "tests/catch.h"
#include "tests/moe/tiny.h"

using namespace cohort;

namespace {

core::ModelConfig small_mla() {
  auto config = tests::tiny_model();
  config.num_nextn_predict_layers = 0;
  return config;
}

core::ModelConfig small_gqa() {
  auto config = small_mla();
  config.model_type = "qwen3_moe";
  config.kv_lora_rank = config.q_lora_rank = 0;
  config.num_attention_heads = 4;
  config.num_key_value_heads = 2;
  config.head_dim = 6;
  config.qk_norm = true;
  config.rope_interleave = false;
  config.scoring_func = "softmax";
  config.n_shared_experts = 0;
  config.n_group = config.topk_group = 1;
  return config;
}

/// Documents of these lengths in one row, each from position 0.
core::AttentionLayout documents(const std::vector<int64_t>& lengths) {
  core::AttentionLayout layout{1, 0, {}, lengths.size() == 1};
  for (const int64_t length : lengths) {
    layout.runs.push_back({0, layout.seq_len, length, 0});
    layout.seq_len += length;
  }
  return layout;
}

at::Tensor random_tokens(uint64_t seed, int64_t count, int64_t vocab) {
  at::Tensor tokens = at::empty({count}, at::kLong);
  for (int64_t i = 0; i < count; ++i)
    tokens[i] = static_cast<int64_t>(core::random_bits(seed, 7, i) % vocab);
  return tokens;
}

/// Decodes documents of `lengths` in steps: the first `prompt` tokens of each in one pass, then one
/// token of each a pass. Cache rows of a document lie in pieces of `piece` rows, interleaved with
/// the others'. Gives hidden states in the order of the documents, and experts likewise.
struct Decoded {
  at::Tensor hidden, experts;
};
Decoded decode_in_steps(moe::Transformer& model,
                        const at::Tensor& tokens,
                        const std::vector<int64_t>& lengths,
                        int64_t prompt,
                        int64_t piece) {
  const auto n = static_cast<int64_t>(lengths.size());
  const int64_t longest = *std::max_element(lengths.begin(), lengths.end());
  auto cache = model.make_cache((longest / piece + 1) * piece * n);
  const auto row_of = [&](int64_t doc, int64_t t) {
    return (t / piece * n + doc) * piece + t % piece;
  };
  std::vector<at::Tensor> hidden(tokens.size(0)), experts(tokens.size(0));
  for (int64_t step = 0; step < longest; step = std::max(step + 1, prompt)) {
    std::vector<int64_t> token, position, slot, spans, first{0}, where;
    int64_t offset = 0;
    for (int64_t doc = 0; doc < n; offset += lengths[doc++])
      for (int64_t t = step; t < std::min(lengths[doc], step == 0 ? prompt : step + 1); ++t) {
        token.push_back(tokens[offset + t].item<int64_t>());
        position.push_back(t);
        slot.push_back(row_of(doc, t));
        for (int64_t i = 0; i <= t; i += piece)
          spans.insert(spans.end(), {row_of(doc, i), std::min(piece, t + 1 - i)});
        first.push_back(static_cast<int64_t>(spans.size()) / 2);
        where.push_back(offset + t);
      }
    at::Tensor chosen;
    const auto out = model.decode(at::tensor(token, at::kLong),
                                  {at::tensor(position, at::kLong),
                                   at::tensor(slot, at::kLong),
                                   at::tensor(spans, at::kLong).view({-1, 2}),
                                   at::tensor(first, at::kLong)},
                                  cache,
                                  &chosen);
    for (size_t i = 0; i < where.size(); ++i) {
      hidden[where[i]] = out[i];
      if (chosen.defined()) experts[where[i]] = chosen[i];
    }
  }
  return {at::stack(hidden), experts[0].defined() ? at::stack(experts) : at::Tensor()};
}

moe::PassOptions absorbed_pass() {
  moe::PassOptions options;
  options.absorbed = true;
  return options;
}

const std::vector<int64_t> kLengths{37, 1, 20, 64};
constexpr int64_t kTokens = 122;

}  // namespace

TEST_CASE("Decoding has the bits of the forward pass, whatever lies beside a sequence",
          "[moe-decode]") {
  const auto mesh = distributed::make_local_mesh();
  const auto config = GENERATE(small_mla(), small_gqa());
  CAPTURE(config.model_type);
  moe::Transformer model(config, mesh.ep, 3, at::kFloat);
  const auto tokens = random_tokens(5, kTokens, config.vocab_size);
  at::NoGradGuard no_grad;
  auto options = absorbed_pass();
  const auto whole =
      model.forward(tokens.unsqueeze(0), documents(kLengths), options).hidden.squeeze(0);

  for (const auto& [prompt, piece] : {std::pair{9, 16}, std::pair{1, 3}, std::pair{64, 64}}) {
    const auto steps = decode_in_steps(model, tokens, kLengths, prompt, piece);
    CAPTURE(prompt, piece);
    if (core::own_fp32_gemm())
      CHECK(at::equal(whole, steps.hidden));
    else
      CHECK(at::allclose(whole, steps.hidden, 1e-4, 1e-5));
  }
}

TEST_CASE("The absorbed form is the same function: values and gradients in fp64", "[moe-decode]") {
  const auto mesh = distributed::make_local_mesh();
  moe::Transformer model(small_mla(), mesh.ep, 3, at::kDouble);
  const auto tokens = random_tokens(5, kTokens, 61).unsqueeze(0);
  const auto weights = at::randn({1, kTokens, 16}, at::kDouble);
  std::vector<at::Tensor> leaves;
  for (const auto& parameter : model.parameters())
    if (parameter.value.requires_grad()) leaves.push_back(parameter.value);
  const auto run = [&](bool absorbed) {
    for (auto& leaf : leaves) leaf.mutable_grad() = at::zeros_like(leaf);
    moe::PassOptions options;
    options.absorbed = absorbed;
    const auto hidden = model.forward(tokens, documents(kLengths), options).hidden;
    (hidden * weights).sum().backward();
    std::vector<at::Tensor> out{hidden.detach()};
    for (const auto& leaf : leaves) out.push_back(leaf.grad().clone());
    return out;
  };
  const auto plain = run(false), absorbed = run(true);
  // Two orders of the same sums: 1e-11 of the largest entry is far above their rounding.
  for (size_t i = 0; i < plain.size(); ++i) {
    CAPTURE(i);
    const double scale = plain[i].abs().max().item<double>() + 1e-300;
    CHECK((plain[i] - absorbed[i]).abs().max().item<double>() / scale < 1e-11);
  }
}

TEST_CASE("Positions of a document may start anew without changing the function", "[moe-decode]") {
  const auto mesh = distributed::make_local_mesh();
  moe::Transformer model(small_mla(), mesh.ep, 3, at::kDouble);
  const auto tokens = random_tokens(5, kTokens, 61).unsqueeze(0);
  at::NoGradGuard no_grad;
  at::Tensor document = at::empty({1, kTokens}, at::kLong);
  int64_t at = 0, id = 0;
  for (const int64_t length : kLengths) {
    document.narrow(1, at, length).fill_(id++);
    at += length;
  }
  const auto along = model.forward(tokens, document, {}).hidden;
  const auto anew = model.forward(tokens, documents(kLengths), {}).hidden;
  CHECK((along - anew).abs().max().item<double>() < 1e-11);
}

TEST_CASE("bf16 decoding stays close to the forward pass", "[moe-decode]") {
  const auto mesh = distributed::make_local_mesh();
  moe::Transformer model(small_mla(), mesh.ep, 3, at::kBFloat16);
  const auto tokens = random_tokens(5, kTokens, 61);
  at::NoGradGuard no_grad;
  // Routing replayed, or a tie that falls the other way would swap an expert.
  const auto steps = decode_in_steps(model, tokens, kLengths, 9, 16);
  auto options = absorbed_pass();
  options.replay = std::make_shared<moe::RoutingReplay>();
  options.replay->expert_TLK = steps.experts;
  const auto whole =
      model.forward(tokens.unsqueeze(0), documents(kLengths), options).hidden.squeeze(0);
  CHECK((whole - steps.hidden).abs().max().item<double>() < 0.1);
  CHECK(options.replay->compared == kTokens * 2);
}

TEST_CASE("Replayed routing is followed, and counted where the router would differ",
          "[moe-decode]") {
  const auto mesh = distributed::make_local_mesh();
  moe::Transformer model(small_mla(), mesh.ep, 3, at::kFloat);
  const auto tokens = random_tokens(5, kTokens, 61);
  at::NoGradGuard no_grad;
  const auto steps = decode_in_steps(model, tokens, kLengths, 9, 16);
  REQUIRE(steps.experts.sizes() == at::IntArrayRef({kTokens, 2, 2}));
  const auto run = [&](const at::Tensor& experts) {
    auto options = absorbed_pass();
    options.replay = std::make_shared<moe::RoutingReplay>();
    options.replay->expert_TLK = experts;
    const auto out = model.forward(tokens.unsqueeze(0), documents(kLengths), options);
    return std::pair{out.hidden.squeeze(0), *options.replay};
  };
  const auto [same, faithful] = run(steps.experts);
  CHECK(faithful.compared == 2 * kTokens);
  if (core::own_fp32_gemm()) {
    CHECK(faithful.mismatched == 0);
    CHECK(at::equal(same, steps.hidden));
  }
  auto other = steps.experts.clone();
  other[11][1][0] = other[11][1][0].item<int16_t>() == 0 ? 1 : 0;
  const auto [moved, unfaithful] = run(other);
  CHECK(unfaithful.mismatched == faithful.mismatched + 1);
  CHECK_FALSE(at::equal(moved[11], same[11]));
  CHECK(at::equal(moved[10], same[10]));
}

TEST_CASE("A pass without tokens is no error", "[moe-decode]") {
  const auto mesh = distributed::make_local_mesh();
  moe::Transformer model(small_mla(), mesh.ep, 3, at::kFloat);
  auto cache = model.make_cache(0);
  const auto none = at::empty({0}, at::kLong);
  at::Tensor experts;
  const auto out = model.decode(
      none, {none, none, at::empty({0, 2}, at::kLong), at::zeros({1}, at::kLong)}, cache, &experts);
  CHECK(out.sizes() == at::IntArrayRef({0, 16}));
  CHECK(experts.sizes() == at::IntArrayRef({0, 2, 2}));
}
