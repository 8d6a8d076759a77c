#include "rl/generator.h"

#include "core/base/error.h"
#include "core/nn/linear.h"
#include "rl/cache_blocks.h"
#include "tests/catch.h"
#include "tests/moe/tiny.h"

using namespace cohort;

namespace {

core::ModelConfig small_model() {
  auto config = tests::tiny_model();
  config.num_nextn_predict_layers = 0;
  config.max_position_embeddings = 128;
  config.eos_token_id = 60;
  return config;
}

struct Fixture {
  distributed::Mesh mesh = distributed::make_local_mesh();
  moe::Transformer model{small_model(), mesh.ep, 3, at::kFloat};

  rl::Generator generator(int64_t max_running = 256, int64_t cache_tokens = 0) {
    return {model, nullptr, mesh.ep, {max_running, cache_tokens, true}};
  }

  /// Logits [n, V] after each token of a sequence, by the forward pass of training.
  at::Tensor logits(const std::vector<int32_t>& ids) {
    at::NoGradGuard no_grad;
    at::Tensor input = at::empty({1, static_cast<int64_t>(ids.size())}, at::kLong);
    for (size_t i = 0; i < ids.size(); ++i) input[0][static_cast<int64_t>(i)] = ids[i];
    moe::PassOptions options;
    options.absorbed = true;
    const auto hidden = model.forward(input, at::Tensor(), options).hidden.squeeze(0);
    return core::linear(hidden, model.head());
  }
};

std::vector<rl::GenerationRequest> some_requests() {
  return {{{3, 9, 4, 7, 1}, {11, 12, 13}},
          {{5}, {21}},
          {std::vector<int32_t>(40, 8), {31, 32}},
          {{2, 2, 17, 30}, {}},
          {{3, 9, 4, 7, 1}, {41}}};
}

bool same(const rl::Generated& a, const rl::Generated& b) {
  return a.tokens == b.tokens && a.log_prob == b.log_prob && a.entropy == b.entropy &&
         at::equal(a.experts, b.experts) && a.stop == b.stop;
}

}  // namespace

TEST_CASE("A sample does not depend on what is drawn beside it", "[rl-generator]") {
  Fixture f;
  core::SamplingConfig sampling;
  sampling.max_new_tokens = 30;
  const auto requests = some_requests();
  auto all = f.generator();
  const auto together = all.generate(requests, sampling);
  REQUIRE(together.size() == 5);
  CHECK(together[3].empty());
  bool differ = false;
  for (size_t i = 1; i < together[0].size(); ++i)
    differ = differ || together[0][i].tokens != together[0][0].tokens;
  CHECK(differ);

  // One at a time; three at a time; a cache that holds one long sequence; another order.
  for (const auto& [running, cache] :
       {std::pair<int64_t, int64_t>{1, 0}, {3, 0}, {256, 80}, {2, 160}}) {
    CAPTURE(running, cache);
    auto generator = f.generator(running, cache);
    const auto alone = generator.generate(requests, sampling);
    for (size_t r = 0; r < requests.size(); ++r)
      for (size_t s = 0; s < requests[r].seeds.size(); ++s)
        CHECK(same(together[r][s], alone[r][s]));
    if (cache > 0) CHECK(generator.counters().total_blocks * 16 == cache);
    CHECK(generator.counters().peak_blocks <= generator.counters().total_blocks);
  }
  auto again = f.generator();
  auto turned = requests;
  std::reverse(turned.begin(), turned.end());
  const auto reversed = again.generate(turned, sampling);
  for (size_t r = 0; r < requests.size(); ++r)
    for (size_t s = 0; s < requests[r].seeds.size(); ++s)
      CHECK(same(together[r][s], reversed[requests.size() - 1 - r][s]));
}

TEST_CASE("Greedy decoding is the argmax of the forward pass", "[rl-generator]") {
  Fixture f;
  core::SamplingConfig sampling;
  sampling.max_new_tokens = 20;
  sampling.temperature = 0;
  auto generator = f.generator();
  const auto out = generator.generate({{{3, 9, 4}, {1}}}, sampling)[0][0];
  std::vector<int32_t> ids{3, 9, 4};
  for (const int32_t token : out.tokens) {
    CHECK(token == f.logits(ids)[-1].argmax().item<int64_t>());
    ids.push_back(token);
  }
}

TEST_CASE("Log-probabilities and entropies are those of the forward pass", "[rl-generator]") {
  Fixture f;
  core::SamplingConfig sampling;
  sampling.max_new_tokens = 40;
  sampling.temperature = GENERATE(1.0, 0.7);
  sampling.top_k = GENERATE(0, 5);  // which must not change what is logged
  auto generator = f.generator();
  const auto out = generator.generate({{{3, 9, 4, 7}, {5}}}, sampling)[0][0];
  std::vector<int32_t> ids{3, 9, 4, 7};
  ids.insert(ids.end(), out.tokens.begin(), out.tokens.end() - 1);
  const auto log_p = at::log_softmax(f.logits(ids).to(at::kDouble) / sampling.temperature, -1)
                         .narrow(0, 3, static_cast<int64_t>(out.tokens.size()));
  const auto entropy = -(log_p.exp() * log_p).sum(-1);
  for (size_t i = 0; i < out.tokens.size(); ++i) {
    const auto t = static_cast<int64_t>(i);
    CHECK(std::abs(out.log_prob[i] - log_p[t][out.tokens[i]].item<double>()) < 1e-5);
    CHECK(std::abs(out.entropy[i] - entropy[t].item<double>()) < 1e-5);
  }
  CHECK(out.experts.sizes() == at::IntArrayRef({static_cast<int64_t>(ids.size()), 2, 2}));
}

TEST_CASE("The likeliest tokens are those of the untempered forward pass", "[rl-generator]") {
  Fixture f;
  core::SamplingConfig sampling;
  sampling.max_new_tokens = 20;
  sampling.temperature = GENERATE(1.0, 0.5, 0.0);
  const int64_t most = GENERATE(1, 4, 61);
  rl::Generator generator(f.model, nullptr, f.mesh.ep, {256, 0, false, most});
  const auto out = generator.generate({{{3, 9, 4, 7}, {5, 6}}}, sampling)[0];
  for (const rl::Generated& one : out) {
    std::vector<int32_t> ids{3, 9, 4, 7};
    ids.insert(ids.end(), one.tokens.begin(), one.tokens.end() - 1);
    const auto n = static_cast<int64_t>(one.tokens.size());
    const auto log_p = at::log_softmax(f.logits(ids).to(at::kDouble), -1).narrow(0, 3, n);
    REQUIRE(static_cast<int64_t>(one.top_tokens.size()) == n * most);
    REQUIRE(one.top_log_prob.size() == one.top_tokens.size());
    const auto values = std::get<0>(log_p.topk(most, -1));
    for (int64_t i = 0; i < n * most; ++i) {
      CHECK(std::abs(one.top_log_prob[i] - log_p[i / most][one.top_tokens[i]].item<double>()) <
            1e-5);
      CHECK(std::abs(one.top_log_prob[i] - values[i / most][i % most].item<double>()) < 1e-5);
    }
    if (sampling.temperature == 0.0)
      for (int64_t i = 0; i < n; ++i) CHECK(one.top_tokens[i * most] == one.tokens[i]);
  }
  CHECK_THROWS_AS(rl::Generator(f.model, nullptr, f.mesh.ep, {256, 0, false, 62}), InputError);
}

TEST_CASE("Tokens are drawn as often as they are likely", "[rl-generator]") {
  Fixture f;
  core::SamplingConfig sampling;
  sampling.max_new_tokens = 1;
  rl::GenerationRequest request{{3, 9}, {}};
  for (uint64_t i = 0; i < 20000; ++i) request.seeds.push_back(i);
  auto generator = f.generator(512);
  const auto out = generator.generate({request}, sampling)[0];
  const auto p = at::softmax(f.logits({3, 9})[-1].to(at::kDouble), -1);
  std::vector<int64_t> count(61);
  for (const auto& sample : out) ++count[sample.tokens[0]];
  double chi = 0;
  for (int64_t id = 0; id < 61; ++id) {
    const double expected = 20000 * p[id].item<double>();
    chi += (count[id] - expected) * (count[id] - expected) / expected;
  }
  // 60 degrees of freedom: a fair sampler exceeds 110 once in 20000 times, and the draw is fixed.
  CHECK(chi < 110);
  CHECK(generator.counters().prompt_tokens == 2);
  CHECK(generator.counters().prefix_hit_tokens == 2 * 19999);
  CHECK(generator.counters().generated_tokens == 20000);
}

TEST_CASE("top_k, top_p and min_p leave out what they should", "[rl-generator]") {
  Fixture f;
  const auto p = std::get<0>(at::softmax(f.logits({3, 9})[-1].to(at::kDouble), -1).sort(0, true));
  const auto drawn = [&](const core::SamplingConfig& sampling) {
    rl::GenerationRequest request{{3, 9}, {}};
    for (uint64_t i = 0; i < 3000; ++i) request.seeds.push_back(i);
    auto generator = f.generator();
    std::set<int32_t> tokens;
    const auto out = generator.generate({request}, sampling);
    for (const auto& sample : out[0]) tokens.insert(sample.tokens[0]);
    return static_cast<int64_t>(tokens.size());
  };
  core::SamplingConfig sampling;
  sampling.max_new_tokens = 1;
  sampling.top_k = 4;
  CHECK(drawn(sampling) == 4);
  sampling.top_k = 0;
  sampling.top_p = p[0].item<double>() + p[1].item<double>() + 0.5 * p[2].item<double>();
  CHECK(drawn(sampling) == 3);
  sampling.top_p = 1;
  sampling.min_p = 0.5 * (p[4].item<double>() + p[5].item<double>()) / p[0].item<double>();
  CHECK(drawn(sampling) == 5);
}

TEST_CASE("A completion ends at the end token, at a stop text, or at its length",
          "[rl-generator]") {
  Fixture f;
  core::SamplingConfig sampling;
  sampling.max_new_tokens = 60;
  rl::GenerationRequest request{{3, 9}, {}};
  for (uint64_t i = 0; i < 64; ++i) request.seeds.push_back(i);
  auto generator = f.generator();
  const auto out = generator.generate({request}, sampling)[0];
  std::set<rl::StopReason> reasons;
  for (const auto& sample : out) {
    reasons.insert(sample.stop);
    const bool ended = sample.tokens.back() == 60;
    CHECK((sample.stop == rl::StopReason::kEndToken) == ended);
    if (!ended) CHECK(sample.tokens.size() == 60);
    CHECK(std::count(sample.tokens.begin(), sample.tokens.end(), 60) == (ended ? 1 : 0));
  }
  CHECK(reasons.size() == 2);
}

TEST_CASE("Requests that cannot be met are refused in words", "[rl-generator]") {
  Fixture f;
  core::SamplingConfig sampling;
  sampling.max_new_tokens = 30;
  const auto refuse = [&](const rl::GenerationRequest& request, int64_t cache) {
    auto generator = f.generator(8, cache);
    try {
      generator.generate({request}, sampling);
    } catch (const InputError& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  CHECK(refuse({{}, {1}}, 0).find("no token") != std::string::npos);
  CHECK(refuse({{61}, {1}}, 0).find("ids below 61") != std::string::npos);
  CHECK(refuse({std::vector<int32_t>(99, 1), {1}}, 0).find("128") != std::string::npos);
  CHECK(refuse({std::vector<int32_t>(90, 1), {1}}, 96).find("cache") != std::string::npos);
  CHECK(refuse({std::vector<int32_t>(98, 1), {1}}, 0) == "accepted");
  sampling.stop = {"x"};
  CHECK(refuse({{1}, {1}}, 0).find("tokenizer") != std::string::npos);
}

TEST_CASE("Cache blocks are promised before they are taken", "[rl-generator]") {
  rl::CacheBlocks blocks(4);
  CHECK(blocks.reserve(3));
  CHECK_FALSE(blocks.reserve(2));
  CHECK(blocks.reserve(1));
  CHECK(blocks.take() == 0);
  CHECK(blocks.take() == 1);
  CHECK(blocks.in_use() == 2);
  blocks.give_back({0}, 1);
  CHECK(blocks.reserve(2));
  CHECK(blocks.take() == 0);
  CHECK(blocks.take() == 2);
  CHECK(blocks.take() == 3);
  CHECK_THROWS_AS(blocks.take(), Error);
}
