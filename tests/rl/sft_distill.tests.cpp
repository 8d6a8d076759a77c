// Logit distillation, from lines to the loss.
#include "core/base/error.h"
#include "rl/sft_loss.h"
#include "tests/catch.h"
#include "tests/moe/tiny.h"
#include "tests/rl/sft_examples.h"

using namespace cohort;
using Catch::Matchers::Contains;

namespace {

constexpr int64_t kVocabulary = 280;

core::ModelConfig config() {
  auto config = tests::tiny_model();
  config.vocab_size = kVocabulary;
  config.bos_token_id = 0;
  config.eos_token_id = 1;
  return config;
}

/// What a made-up teacher tells of each token that spells `text` (and of the end): the token itself
/// and its neighbours, so many that they are `top`.
rl::Teacher made_up(const core::Tokenizer& tokenizer, const std::string& text, int64_t top) {
  rl::Teacher teacher{rl::tokenizer_xxh3(tokenizer), top, tokenizer.encode(text), {}, {}};
  teacher.tokens.push_back(1);
  for (size_t i = 0; i < teacher.tokens.size(); ++i)
    for (int64_t j = 0; j < top; ++j) {
      teacher.top_tokens.push_back(static_cast<int32_t>((teacher.tokens[i] + j) % kVocabulary));
      const double p =
          (0.3 + 0.1 * static_cast<double>(i % 3)) / static_cast<double>((j + 1) * top);
      teacher.top_log_probs.push_back(static_cast<float>(std::log(p)));
    }
  return teacher;
}

struct Fixture {
  tests::ScratchFolder folder;
  core::Tokenizer tokenizer = tests::chat_tokenizer();
  distributed::Mesh mesh = distributed::make_local_mesh();
  moe::Transformer model{config(), mesh.ep, 3, at::kDouble};
  rl::SftFormat format = tests::format_of(tokenizer);
  std::vector<rl::SftFile> files;

  Fixture() {
    format.teacher = true;
    format.tokenizer_xxh3 = rl::tokenizer_xxh3(tokenizer);
    format.vocab_size = kVocabulary;
  }
  std::string line(const std::string& prompt, const std::string& text, int64_t top) const {
    nlohmann::ordered_json json{{"prompt", prompt}, {"completion", text}};
    if (top > 0) json["teacher"] = rl::teacher_json(made_up(tokenizer, text, top));
    return json.dump() + "\n";
  }
  void read(const std::string& lines) {
    files.clear();
    files.emplace_back(folder.write("x.jsonl", lines), format, 64);
  }
  std::string slip(const std::string& lines) {
    try {
      read(lines);
    } catch (const InputError& error) {
      return error.what();
    }
    return "no error";
  }
  at::Tensor head_gradient(const at::Tensor& loss) {
    for (auto& p : model.parameters()) p.value.mutable_grad() = at::Tensor();
    loss.backward();
    return model.head().grad();
  }
};

/// The terms of one example, position by position, as the equation has them.
at::Tensor plain_terms(const at::Tensor& hidden,
                       const at::Tensor& head,
                       const rl::SftFile& file,
                       int64_t example,
                       const core::DistillConfig& distill) {
  at::Tensor sum = at::zeros({}, hidden.options());
  const auto tokens = file.tokens(example);
  const auto& teacher = file.teacher(example);
  for (int64_t t = 1; t < file.length(example); ++t) {
    if (!file.trained(example, t)) continue;
    const at::Tensor log_q = at::log_softmax(at::mv(head, hidden[0][t - 1]), 0);
    const int64_t i = t - teacher.first;
    if (i < 0 || i >= teacher.count) {
      sum = sum - log_q[tokens[t]];
      continue;
    }
    std::vector<at::Tensor> p, q;
    at::Tensor named_p = at::zeros({}, at::kDouble);
    for (int64_t j = i * teacher.top; j < (i + 1) * teacher.top; ++j) {
      p.push_back(at::scalar_tensor(file.top_log_probs(teacher)[j], at::kDouble));
      q.push_back(log_q[file.top_tokens(teacher)[j]]);
      named_p = named_p + p.back().exp();
    }
    at::Tensor named_q = at::zeros({}, at::kDouble);
    for (const auto& one : q) named_q = named_q + one.exp();
    p.push_back((1 - named_p).log());
    q.push_back((1 - named_q).log());
    const double T = distill.temperature;
    const auto P = at::log_softmax(at::stack(p) / T, 0), Q = at::log_softmax(at::stack(q) / T, 0);
    const auto kl =
        distill.divergence == "reverse_kl" ? (Q.exp() * (Q - P)).sum() : (P.exp() * (P - Q)).sum();
    sum = sum - (1 - distill.weight) * log_q[tokens[t]] + distill.weight * T * T * kl;
  }
  return sum;
}

}  // namespace

TEST_CASE("tokens of which a teacher told learn from it, the others from themselves",
          "[rl-sft_distill]") {
  Fixture f;
  f.read(f.line("a", "line of text", 3) + f.line("b", "xyz", 0) + f.line("", "text", 7) +
         f.line("long one", "cab", 1));
  const auto rows = rl::pack_rows(f.files, 64);
  const auto counts = rl::count_rows(f.files, rows, 0);
  const auto batch = rl::make_sft_batch(f.files, rows, 0);
  CHECK(counts.teacher == batch.teacher_rows.numel());
  CHECK(counts.teacher == f.files[0].num_teacher());
  CHECK(counts.teacher < counts.targets[0]);
  for (const auto& distill :
       {core::DistillConfig{0.7, "forward_kl", 1.0}, core::DistillConfig{0.4, "reverse_kl", 2.0}}) {
    const auto terms =
        rl::sft_loss(f.model, batch, counts.targets, 0, false, distill, counts.teacher);
    const at::Tensor gradient = f.head_gradient(terms.total).clone();
    at::Tensor expected = at::zeros({}, at::kDouble);
    for (int64_t i = 0; i < f.files[0].count(); ++i) {
      const auto tokens = f.files[0].tokens(i);
      at::Tensor ids = at::empty({1, f.files[0].length(i) - 1}, at::kLong);
      std::copy(tokens.begin(), tokens.end() - 1, ids.data_ptr<int64_t>());
      const auto hidden = f.model.forward(ids, at::Tensor(), {false, false, false}).hidden;
      expected = expected + plain_terms(hidden, f.model.head(), f.files[0], i, distill);
    }
    expected = expected / counts.targets[0];
    CHECK(terms.total.item<double>() == Approx(expected.item<double>()).epsilon(1e-9));
    CHECK(at::allclose(gradient, f.head_gradient(expected), 1e-7, 1e-12));
    CHECK(terms.parts[0].second.item<double>() ==
          Approx(rl::sft_nats(f.model, batch) / counts.targets[0]).epsilon(1e-12));
    REQUIRE(terms.parts[2].first == "distill_kl");
    CHECK(terms.parts[2].second.item<double>() > 0);
  }
}

TEST_CASE("a completion's tokens are those that the teacher drew", "[rl-sft_distill]") {
  Fixture f;
  rl::Teacher spelled = made_up(f.tokenizer, "x", 2);
  spelled.tokens.clear();
  spelled.top_tokens.clear();
  spelled.top_log_probs.clear();
  for (const char letter : std::string(" line")) {
    const auto one = f.tokenizer.encode(std::string(1, letter));
    const rl::Teacher part = made_up(f.tokenizer, std::string(1, letter), 2);
    spelled.tokens.push_back(one[0]);
    spelled.top_tokens.insert(
        spelled.top_tokens.end(), part.top_tokens.begin(), part.top_tokens.begin() + 2);
    spelled.top_log_probs.insert(
        spelled.top_log_probs.end(), part.top_log_probs.begin(), part.top_log_probs.begin() + 2);
  }
  nlohmann::ordered_json json{
      {"prompt", "a"}, {"completion", " line"}, {"teacher", rl::teacher_json(spelled)}};
  REQUIRE(f.tokenizer.encode(" line").size() < 5);
  const auto example = rl::sft_example(json.dump(), "f:1", f.format);
  CHECK(example.tokens.size() ==
        1 + f.tokenizer.encode("a").size() + 5 + 1);  // the end is added, which nobody told of
  CHECK(example.teacher.tokens.size() == 5);
  CHECK(example.tokens[example.teacher_begin] == spelled.tokens[0]);
  CHECK(example.trained.back());
  json["truncated"] = true;
  CHECK(rl::sft_example(json.dump(), "f:1", f.format).tokens.size() + 1 == example.tokens.size());
  // Without distillation it is the text that counts.
  f.format.teacher = false;
  const auto plain = rl::sft_example(json.dump(), "f:1", f.format);
  CHECK(plain.tokens.size() < example.tokens.size());
  CHECK(plain.teacher.tokens.empty());
}

TEST_CASE("a teacher that does not fit its line or the model is refused", "[rl-sft_distill]") {
  Fixture f;
  auto json = nlohmann::ordered_json::parse(f.line("a", "line", 2));
  json["completion"] = "other";
  CHECK_THAT(f.slip(json.dump()), Contains("x.jsonl:1: teacher.tokens do not spell"));
  json = nlohmann::ordered_json::parse(f.line("a", "line", 2));
  json["teacher"]["tokenizer"] = "0123456789abcdef";
  const std::string said = f.slip(f.line("b", "c", 0) + json.dump());
  CHECK_THAT(said, Contains("x.jsonl:2: the teacher's tokenizer (0123456789abcdef) is not"));
  CHECK(said.find('\n') == std::string::npos);
  json.erase("prompt");
  json.erase("completion");
  json["messages"] = {{{"role", "user"}, {"content", "q"}},
                      {{"role", "assistant"}, {"content", "a"}}};
  CHECK_THAT(f.slip(json.dump()), Contains("beside a conversation"));
}
