#include "rl/generator.h"

#include <algorithm>
#include <chrono>
#include <optional>

#include "core/base/device_branch.h"
#include "core/base/error.h"
#include "core/base/rng.h"
#include "core/nn/kernel_types.h"
#include "core/nn/linear.h"
#include "kernels/cpu/likeliest.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/sampling.h"
#include "kernels/cpu/token_log_probs.h"
#include "rl/cache_blocks.h"
#include "rl/decode_pass.h"

namespace cohort::rl {
namespace {

constexpr int64_t kPrefillTokens = 4096;    // of new prompts in one pass, at least one prompt
constexpr int64_t kLogitsAtOnce = 1 << 22;  // elements

/// A prompt in the cache, shared by the samples of its request.
struct Prefix {
  int64_t request = 0;
  std::vector<int32_t> blocks;
  int64_t users = 0;   ///< Samples running or still to come.
  at::Tensor logits;   ///< [V] after its last token; undefined until computed.
  at::Tensor experts;  ///< int16 [P, L, K], when recorded.
};

/// One sample being drawn.
struct Running {
  int64_t request = 0, sample = 0;
  std::shared_ptr<Prefix> prefix;
  std::vector<int32_t> blocks;
  int64_t reserved = 0;  ///< Blocks promised and not yet taken.
  Generated out;
  std::vector<int16_t> experts;  ///< Of generated tokens that were inputs.
  std::string tail;              ///< The end of its text, where stop texts are looked for.
  bool waits_for_prefix = false;
  bool done = false;
};

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

struct Generator::State {
  State(moe::Transformer& model_in,
        const core::Tokenizer* tokenizer_in,
        std::shared_ptr<distributed::Communicator> ep_in,
        const GeneratorOptions& options_in)
      : model(model_in), tokenizer(tokenizer_in), ep(std::move(ep_in)), options(options_in) {}

  moe::Transformer& model;
  const core::Tokenizer* tokenizer;
  std::shared_ptr<distributed::Communicator> ep;
  GeneratorOptions options;
  GeneratorCounters counters;
  std::optional<CacheBlocks> blocks;
  moe::KvCache cache;

  // Of the call under way.
  const std::vector<GenerationRequest>* requests = nullptr;
  core::SamplingConfig sampling;
  const OnToken* on_token = nullptr;
  std::vector<std::vector<Generated>> results;
  std::shared_ptr<Prefix> newest_prefix;  ///< Of the request whose samples are being admitted.
  int64_t next_request = 0, next_sample = 0;
  std::vector<std::unique_ptr<Running>> running;

  int64_t own_rows() const { return std::max<int64_t>(sampling.max_new_tokens - 1, 0); }
  const std::vector<int32_t>& prompt(int64_t request) const { return (*requests)[request].prompt; }

  /// What is wrong with this rank's requests; empty when nothing is.
  std::string fault() const {
    const int64_t longest = model.config().max_position_embeddings;
    const int64_t own = CacheBlocks::blocks_for(own_rows());
    if (sampling.max_new_tokens < 1) return "max_new_tokens is below 1";
    if (!sampling.stop.empty() && !tokenizer) return "stop texts need a tokenizer";
    for (const auto& request : *requests) {
      const int64_t tokens = static_cast<int64_t>(request.prompt.size());
      if (tokens == 0) return "a prompt has no token; begin it with the begin token or some text";
      for (const int32_t id : request.prompt)
        if (id < 0 || id >= model.config().vocab_size)
          return fmt::format("a prompt holds token {}, the model knows ids below {}",
                             id,
                             model.config().vocab_size);
      if (tokens + sampling.max_new_tokens > longest)
        return fmt::format(
            "a prompt of {} tokens and {} new ones exceed max_position_embeddings {}; shorten the "
            "prompt or lower max_new_tokens",
            tokens,
            sampling.max_new_tokens,
            longest);
      if (options.cache_tokens > 0 &&
          (CacheBlocks::blocks_for(tokens) + own) * CacheBlocks::kBlockRows > options.cache_tokens)
        return fmt::format(
            "a prompt of {} tokens and {} new ones need {} cache rows of {}; raise cache_tokens",
            tokens,
            sampling.max_new_tokens,
            (CacheBlocks::blocks_for(tokens) + own) * CacheBlocks::kBlockRows,
            options.cache_tokens);
    }
    return "";
  }

  /// The same error on all ranks of ep, or none.
  void check() const {
    const std::string mine = fault();
    for (const auto& text : ep->size() > 1 ? ep->all_gather_text(mine) : std::vector{mine})
      COHORT_CHECK_INPUT(text.empty(), "generation: {}", text);
  }

  /// A cache that fits this call; what was there is kept when it does.
  void make_room() {
    int64_t prompt_blocks = 0, samples = 0;
    for (const auto& request : *requests) {
      prompt_blocks = std::max(
          prompt_blocks, CacheBlocks::blocks_for(static_cast<int64_t>(request.prompt.size())));
      samples += static_cast<int64_t>(request.seeds.size());
    }
    const int64_t most = std::min(options.max_running, samples);
    int64_t wanted = most * (prompt_blocks + CacheBlocks::blocks_for(own_rows()));
    if (options.cache_tokens > 0) wanted = options.cache_tokens / CacheBlocks::kBlockRows;
    if (blocks && blocks->total() >= wanted) return;
    blocks.emplace(wanted);
    cache = model.make_cache(wanted * CacheBlocks::kBlockRows);
    counters.total_blocks = wanted;
  }

  void begin() {
    results.assign(requests->size(), {});
    for (size_t i = 0; i < requests->size(); ++i) results[i].resize((*requests)[i].seeds.size());
    next_request = next_sample = 0;
    newest_prefix = nullptr;
    running.clear();
  }

  /// The next sample that waits, if its blocks can be promised.
  bool admit_one() {
    while (next_request < static_cast<int64_t>(requests->size()) &&
           next_sample == static_cast<int64_t>((*requests)[next_request].seeds.size())) {
      ++next_request;
      next_sample = 0;
    }
    if (next_request == static_cast<int64_t>(requests->size())) return false;
    if (static_cast<int64_t>(running.size()) >= options.max_running) return false;
    const int64_t tokens = static_cast<int64_t>(prompt(next_request).size());
    const bool fresh = next_sample == 0;
    const int64_t shared = fresh ? CacheBlocks::blocks_for(tokens) : 0;
    const int64_t own = CacheBlocks::blocks_for(own_rows());
    if (!blocks->reserve(shared + own)) return false;
    if (fresh) {
      newest_prefix = std::make_shared<Prefix>();
      newest_prefix->request = next_request;
      newest_prefix->users = static_cast<int64_t>((*requests)[next_request].seeds.size());
      for (int64_t i = 0; i < shared; ++i) newest_prefix->blocks.push_back(blocks->take());
    } else {
      counters.prefix_hit_tokens += tokens;
    }
    auto sample = std::make_unique<Running>();
    sample->request = next_request;
    sample->sample = next_sample++;
    sample->prefix = newest_prefix;
    sample->reserved = own;
    sample->waits_for_prefix = !newest_prefix->logits.defined();
    running.push_back(std::move(sample));
    return true;
  }

  void admit() {
    int64_t prefill = 0;
    while (prefill < kPrefillTokens && admit_one()) {
      Running& sample = *running.back();
      if (sample.waits_for_prefix) {
        if (sample.sample == 0) prefill += static_cast<int64_t>(prompt(sample.request).size());
        continue;
      }
      draw({{&sample, sample.prefix->logits}});
      if (sample.done) release_finished();
    }
  }

  /// A token to be drawn: for whom, from which logits [V].
  struct Draw {
    Running* sample;
    at::Tensor logits;
  };

  void draw(const std::vector<Draw>& draws) {
    if (draws.empty()) return;
    std::vector<int64_t> token(draws.size());
    std::vector<double> log_prob(draws.size()), entropy(draws.size());
    const int64_t most = options.top_log_probs;
    const kernels::SamplingRule rule{
        sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p};
    const double inverse = sampling.temperature > 0 ? 1 / sampling.temperature : 1.0;
    core::with_kernel_type("generate", draws[0].logits, [&]<class T>(T) {
      const int64_t classes = draws[0].logits.numel();
      kernels::parallel_for(static_cast<int64_t>(draws.size()), 1, [&](int64_t begin, int64_t end) {
        std::vector<kernels::Sum<T>> work(classes);
        std::vector<double> top(most);
        for (int64_t i = begin; i < end; ++i) {
          Running& sample = *draws[i].sample;
          T* logits = core::elements<T>(draws[i].logits);
          const double u = core::random_uniform((*requests)[sample.request].seeds[sample.sample],
                                                core::stream_of("token"),
                                                sample.out.tokens.size());
          token[i] = kernels::sample_token<T>(logits, classes, rule, u, work.data());
          if (token[i] < 0) continue;
          kernels::token_log_probs<T>(
              logits, &token[i], 1, classes, inverse, nullptr, &log_prob[i], &entropy[i]);
          if (most == 0) continue;
          auto& tokens = sample.out.top_tokens;
          tokens.resize(tokens.size() + most);
          kernels::likeliest<T>(logits, classes, most, &tokens[tokens.size() - most], top.data());
          sample.out.top_log_prob.insert(sample.out.top_log_prob.end(), top.begin(), top.end());
        }
      });
    });
    for (size_t i = 0; i < draws.size(); ++i) {
      COHORT_CHECK(token[i] >= 0,
                   "the logits after token {} of a completion are not finite: the weights are "
                   "broken, or the learning rate was too high",
                   draws[i].sample->out.tokens.size());
      take_token(*draws[i].sample, token[i], log_prob[i], entropy[i]);
    }
  }

  void take_token(Running& sample, int64_t token, double log_prob, double entropy) {
    Generated& out = sample.out;
    out.tokens.push_back(static_cast<int32_t>(token));
    out.log_prob.push_back(static_cast<float>(log_prob));
    out.entropy.push_back(static_cast<float>(entropy));
    ++counters.generated_tokens;
    if (*on_token) (*on_token)(sample.request, sample.sample, out.tokens.back());
    if (model.config().is_end(token))
      out.stop = StopReason::kEndToken;
    else if (ends_by_text(sample, out.tokens.back()))
      out.stop = StopReason::kStopText;
    else if (static_cast<int64_t>(out.tokens.size()) < sampling.max_new_tokens)
      return;
    sample.done = true;
  }

  bool ends_by_text(Running& sample, int32_t token) const {
    if (sampling.stop.empty()) return false;
    if (token < tokenizer->vocab_size()) sample.tail += tokenizer->token_bytes(token);
    size_t longest = 0;
    for (const auto& text : sampling.stop) {
      longest = std::max(longest, text.size());
      if (!text.empty() && sample.tail.find(text) != std::string::npos) return true;
    }
    if (sample.tail.size() > longest) sample.tail.erase(0, sample.tail.size() - longest);
    return false;
  }

  void release_finished() {
    for (auto& sample : running) {
      if (!sample->done) continue;
      blocks->give_back(sample->blocks, sample->reserved);
      if (--sample->prefix->users == 0) blocks->give_back(sample->prefix->blocks, 0);
      if (options.record_experts) sample->out.experts = joined_experts(*sample);
      results[sample->request][sample->sample] = std::move(sample->out);
    }
    std::erase_if(running, [](const auto& sample) { return sample->done; });
  }

  at::Tensor joined_experts(const Running& sample) const {
    const at::Tensor& prefix = sample.prefix->experts;
    if (!prefix.defined()) return {};
    const int64_t layers = prefix.size(1), K = prefix.size(2);
    const int64_t inputs = static_cast<int64_t>(sample.experts.size()) / (layers * K);
    at::Tensor own = at::empty({inputs, layers, K}, at::kShort);
    std::copy(sample.experts.begin(), sample.experts.end(), own.data_ptr<int16_t>());
    return at::cat({prefix, own});
  }

  /// One forward pass: prompts that are new, and the last token of everyone else.
  void pass() {
    DecodePass rows;
    std::vector<std::pair<Prefix*, int64_t>> prefixes;  // and its last row
    for (const auto& sample : running) {
      if (!sample->waits_for_prefix || sample->prefix->logits.defined()) continue;
      Prefix* prefix = sample->prefix.get();
      if (!prefixes.empty() && prefixes.back().first == prefix) continue;
      const auto& tokens = prompt(prefix->request);
      for (int64_t i = 0; i < static_cast<int64_t>(tokens.size()); ++i)
        rows.add(tokens[i], i, {{&prefix->blocks, i + 1}});
      counters.prompt_tokens += static_cast<int64_t>(tokens.size());
      prefixes.emplace_back(prefix, rows.size() - 1);
    }
    const int64_t first_decoding = rows.size();
    std::vector<Running*> decoding;
    for (const auto& sample : running) {
      if (sample->waits_for_prefix) continue;
      add_decoding(*sample, rows);
      decoding.push_back(sample.get());
    }
    counters.peak_blocks = std::max(counters.peak_blocks, blocks->in_use());
    ++counters.passes;

    at::Tensor experts;
    const at::Tensor hidden = model.decode(at::tensor(rows.tokens, at::kLong),
                                           rows.layout(),
                                           cache,
                                           options.record_experts ? &experts : nullptr);
    if (experts.defined()) record(experts, prefixes, first_decoding, decoding);
    draw_after(hidden, prefixes, first_decoding, decoding);
    release_finished();
  }

  void add_decoding(Running& sample, DecodePass& rows) {
    const int64_t prompt_rows = static_cast<int64_t>(prompt(sample.request).size());
    const int64_t own = static_cast<int64_t>(sample.out.tokens.size());
    if (CacheBlocks::blocks_for(own) > static_cast<int64_t>(sample.blocks.size())) {
      sample.blocks.push_back(blocks->take());
      --sample.reserved;
    }
    rows.add(sample.out.tokens.back(),
             prompt_rows + own - 1,
             {{&sample.prefix->blocks, prompt_rows}, {&sample.blocks, own}});
  }

  void record(const at::Tensor& experts,
              const std::vector<std::pair<Prefix*, int64_t>>& prefixes,
              int64_t first_decoding,
              const std::vector<Running*>& decoding) const {
    for (const auto& [prefix, last] : prefixes) {
      const int64_t count = static_cast<int64_t>(prompt(prefix->request).size());
      prefix->experts = experts.narrow(0, last + 1 - count, count).clone();
    }
    const int64_t per_token = experts.size(1) * experts.size(2);
    const int16_t* at = experts.const_data_ptr<int16_t>() + first_decoding * per_token;
    for (Running* sample : decoding) {
      sample->experts.insert(sample->experts.end(), at, at + per_token);
      at += per_token;
    }
  }

  void draw_after(const at::Tensor& hidden,
                  const std::vector<std::pair<Prefix*, int64_t>>& prefixes,
                  int64_t first_decoding,
                  const std::vector<Running*>& decoding) {
    at::NoGradGuard no_grad;
    const at::Tensor& head = model.head();
    const int64_t at_once = std::max<int64_t>(1, kLogitsAtOnce / head.size(0));
    if (!prefixes.empty()) {
      std::vector<int64_t> last;
      for (const auto& [prefix, row] : prefixes) last.push_back(row);
      const at::Tensor chosen =
          hidden.index_select(0, at::tensor(last, at::kLong).to(hidden.device()));
      for (int64_t i = 0; i < chosen.size(0); i += at_once) {
        const int64_t count = std::min(at_once, chosen.size(0) - i);
        const at::Tensor logits = core::to_host(core::linear(chosen.narrow(0, i, count), head));
        for (int64_t j = 0; j < count; ++j) prefixes[i + j].first->logits = logits[j].clone();
      }
    }
    for (int64_t i = 0; i < static_cast<int64_t>(decoding.size()); i += at_once) {
      const int64_t count = std::min<int64_t>(at_once, decoding.size() - i);
      const at::Tensor logits =
          core::to_host(core::linear(hidden.narrow(0, first_decoding + i, count), head));
      std::vector<Draw> draws;
      for (int64_t j = 0; j < count; ++j) draws.push_back({decoding[i + j], logits[j]});
      draw(draws);
    }
    std::vector<Draw> firsts;
    for (const auto& sample : running) {
      if (!sample->waits_for_prefix) continue;
      sample->waits_for_prefix = false;
      firsts.push_back({sample.get(), sample->prefix->logits});
    }
    draw(firsts);
  }

  bool anyone_left() const {
    if (ep->size() == 1) return !running.empty();
    at::Tensor left = at::full({1}, running.empty() ? 0 : 1, at::kLong);
    ep->all_reduce(left, distributed::ReduceOp::kMax);
    return left.item<int64_t>() != 0;
  }
};

Generator::Generator(moe::Transformer& model,
                     const core::Tokenizer* tokenizer,
                     std::shared_ptr<distributed::Communicator> ep,
                     const GeneratorOptions& options)
    : state_(std::make_unique<State>(model, tokenizer, std::move(ep), options)) {
  COHORT_CHECK_INPUT(options.max_running >= 1,
                     "generation: max_running is {}; it must be at least 1",
                     options.max_running);
  COHORT_CHECK_INPUT(
      options.top_log_probs >= 0 && options.top_log_probs <= model.config().vocab_size,
      "generation: the {} likeliest tokens of a vocabulary of {} are asked for",
      options.top_log_probs,
      model.config().vocab_size);
}

Generator::~Generator() = default;

std::vector<std::vector<Generated>> Generator::generate(
    const std::vector<GenerationRequest>& requests,
    const core::SamplingConfig& sampling,
    const OnToken& on_token) {
  State& s = *state_;
  const double start = now();
  const core::SteadyWeights steady;
  s.requests = &requests;
  s.sampling = sampling;
  s.on_token = &on_token;
  s.check();
  s.make_room();
  s.begin();
  while (true) {
    s.admit();
    if (!s.anyone_left()) break;
    s.pass();
  }
  s.counters.seconds += now() - start;
  return std::move(s.results);
}

const GeneratorCounters& Generator::counters() const { return state_->counters; }

}  // namespace cohort::rl
