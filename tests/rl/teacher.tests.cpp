// What a teacher told, in an example's line.
#include "rl/teacher.h"

#include <cmath>

#include "core/base/error.h"
#include "tests/catch.h"
#include "tests/rl/sft_examples.h"

using namespace cohort;
using Catch::Matchers::Contains;
using nlohmann::ordered_json;

namespace {

rl::Teacher some_teacher() {
  rl::Teacher teacher{"00ff", 2, {5, 260, 1}, {5, 9, 260, 0, 1, 7}, {}};
  for (const double p : {0.5, 0.25, 0.9, 0.05, 1.0, 0.0001})
    teacher.top_log_probs.push_back(static_cast<float>(std::log(p)));
  return teacher;
}

std::string slip(const ordered_json& json) {
  try {
    rl::read_teacher(json, "f.jsonl:3", 280);
  } catch (const InputError& error) {
    CHECK_THAT(error.what(), Catch::Matchers::StartsWith("f.jsonl:3: "));
    return error.what();
  }
  return "no error";
}

}  // namespace

TEST_CASE("a teacher's tokens come back from their line", "[rl-teacher]") {
  const rl::Teacher teacher = some_teacher();
  const auto line = ordered_json::parse(rl::teacher_json(teacher).dump());
  const rl::Teacher read = rl::read_teacher(line, "f.jsonl:3", 280);
  CHECK(read.tokenizer == teacher.tokenizer);
  CHECK(read.top == 2);
  CHECK(read.tokens == teacher.tokens);
  CHECK(read.top_tokens == teacher.top_tokens);
  CHECK(read.top_log_probs == teacher.top_log_probs);
}

TEST_CASE("what is no teacher is refused with its place", "[rl-teacher]") {
  const ordered_json good = rl::teacher_json(some_teacher());
  CHECK(slip(good) == "no error");
  const auto with = [&](const char* key, const ordered_json& value) {
    ordered_json bad = good;
    bad[key] = value;
    return slip(bad);
  };
  const auto of = [&](auto change) {
    rl::Teacher teacher = some_teacher();
    change(teacher);
    return slip(rl::teacher_json(teacher));
  };
  CHECK_THAT(slip(3), Contains("no tokenizer"));
  CHECK_THAT(with("top", 0), Contains("from 1"));
  CHECK_THAT(with("top", 281), Contains("280"));
  CHECK_THAT(with("top", 3), Contains("want 3 of each"));
  CHECK_THAT(with("tokens", 4), Contains("teacher.tokens"));
  CHECK_THAT(with("tokens", "AAA="), Contains("teacher.tokens is no Base64"));
  CHECK_THAT(with("top_tokens", "!!!!"), Contains("teacher.top_tokens is no Base64"));
  CHECK_THAT(with("tokens", ""), Contains("0 tokens"));
  CHECK_THAT(of([](auto& t) { t.tokens[1] = 280; }), Contains("names token 280"));
  CHECK_THAT(of([](auto& t) { t.top_tokens[1] = -1; }), Contains("names token -1"));
  CHECK_THAT(of([](auto& t) { t.top_tokens[1] = 5; }), Contains("of token 0 are no probabilities"));
  CHECK_THAT(of([](auto& t) { t.top_log_probs[3] = 0; }), Contains("of token 1 are no prob"));
  CHECK_THAT(of([](auto& t) { t.top_log_probs[3] = NAN; }), Contains("of token 1 are no prob"));
  CHECK_THAT(of([](auto& t) { t.top_log_probs[3] = -INFINITY; }), Contains("of token 1"));
}

TEST_CASE("a tokenizer's hash tells it from others", "[rl-teacher]") {
  const auto tokenizer = tests::chat_tokenizer();
  const auto copy = core::Tokenizer::parse(tokenizer.to_json(), "copy");
  CHECK(rl::tokenizer_xxh3(tokenizer) == rl::tokenizer_xxh3(copy));
  bool given = false;
  const auto other = core::train_tokenizer(
      [&](std::string& text) {
        text = "a line of text";
        return !std::exchange(given, true);
      },
      {260, "gpt2", {"<|begin|>", "<|end|>"}, 2});
  CHECK(rl::tokenizer_xxh3(tokenizer) != rl::tokenizer_xxh3(other));
}
