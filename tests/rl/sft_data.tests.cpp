// Lines of JSON as tokens, masks and errors.
#include "rl/sft_data.h"

#include "core/base/error.h"
#include "rl/rollout.h"
#include "tests/catch.h"
#include "tests/rl/sft_examples.h"

using namespace cohort;
using Catch::Matchers::Contains;
using Catch::Matchers::StartsWith;

namespace {

struct Fixture {
  core::Tokenizer tokenizer = tests::chat_tokenizer();
  rl::SftFormat format = tests::format_of(tokenizer);

  rl::SftExample example(const std::string& line) const {
    return rl::sft_example(line, "f.jsonl:7", format);
  }
  /// The example's text with what is trained in brackets.
  std::string shown(const std::string& line) const {
    const auto one = example(line);
    std::string text;
    for (size_t i = 0; i < one.tokens.size(); ++i) {
      if (one.trained[i] && (i == 0 || !one.trained[i - 1])) text += "[";
      if (!one.trained[i] && i > 0 && one.trained[i - 1]) text += "]";
      text += tokenizer.decode({&one.tokens[i], 1});
    }
    return text + (one.trained.back() ? "]" : "");
  }
  std::string slip(const std::string& line) const {
    try {
      example(line);
    } catch (const InputError& error) {
      CHECK_THAT(error.what(), StartsWith("f.jsonl:7: "));
      CHECK(std::string(error.what()).find('\n') == std::string::npos);
      return error.what();
    }
    return "no error";
  }
};

}  // namespace

TEST_CASE("a completion is trained, its end token included", "[rl-sft_data]") {
  const Fixture f;
  CHECK(f.shown(R"({"prompt": "1 + 2 =", "completion": " 3"})") == "<|begin|>1 + 2 =[ 3<|end|>]");
  CHECK(f.shown(R"({"prompt": "", "completion": "x"})") == "<|begin|>[x<|end|>]");
  // An end that is there is not doubled; other keys are not read.
  CHECK(f.shown(R"({"reward": 1, "completion": "x<|end|>", "prompt": "p", "seed": {"a": []}})") ==
        "<|begin|>p[x<|end|>]");
}

TEST_CASE("prompt and completion are tokenised as a rollout does", "[rl-sft_data]") {
  const Fixture f;
  const auto one = f.example(R"({"prompt": "a li", "completion": "ne of text"})");
  auto expected = rl::prompt_ids(f.tokenizer, "a li", 0);
  const size_t prompt = expected.size();
  CHECK(f.tokenizer.encode("a line of text").size() + 2 < one.tokens.size());  // "line" is cut
  const auto rest = f.tokenizer.encode("ne of text");
  expected.insert(expected.end(), rest.begin(), rest.end());
  expected.push_back(1);
  CHECK(one.tokens == expected);
  for (size_t i = 0; i < expected.size(); ++i) CHECK(one.trained[i] == (i >= prompt));
}

TEST_CASE("assistant turns are trained, with their ends", "[rl-sft_data]") {
  const Fixture f;
  const std::string turns =
      R"([{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "name": "x"},
          {"role": "user", "content": "r"}, {"role": "assistant", "content": "b"}])";
  CHECK(f.shown(R"({"messages": )" + turns + "}") ==
        "<|begin|><|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n[a<|im_end|>]\n"
        "<|im_start|>user\nr<|im_end|>\n<|im_start|>assistant\n[b<|im_end|>]");
  CHECK(f.shown(R"({"prompt": )" + turns +
                R"(, "completion": [{"role": "assistant", "content": "c"}]})") ==
        "<|begin|><|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n"
        "<|im_start|>user\nr<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n"
        "<|im_start|>assistant\n[c<|im_end|>]");
  // A prompt beside messages is another key, as in data sets with both.
  CHECK(f.example(R"({"prompt": "q", "messages": )" + turns + "}").tokens ==
        f.example(R"({"messages": )" + turns + "}").tokens);
}

TEST_CASE("a template may write the begin token and end turns as it likes", "[rl-sft_data]") {
  Fixture f;
  const auto render = [](const nlohmann::ordered_json& messages, bool prompt) {
    std::string text = "<|begin|>";
    for (const auto& message : messages)
      text += message["role"] == "user" ? "U:" + message["content"].get<std::string>()
                                        : "A:" + message["content"].get<std::string>();
    return prompt ? text + "A:" : text;
  };
  f.format.conversation = [&](const nlohmann::ordered_json& messages, size_t first, const auto&) {
    return rl::render_conversation(messages, first, render);
  };
  const std::string line =
      R"({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]})";
  CHECK(f.shown(line) == "<|begin|>U:qA:[a<|end|>]");
}

TEST_CASE("a model without begin or end tokens gets none", "[rl-sft_data]") {
  Fixture f;
  f.format.bos_token_id = f.format.eos_token_id = -1;
  CHECK(f.shown(R"({"prompt": "p", "completion": "xy"})") == "p[xy]");
  CHECK_THAT(f.slip(R"({"prompt": "", "completion": "x"})"), Contains("one token alone"));
}

TEST_CASE("a line that is no example is refused with its place", "[rl-sft_data]") {
  const Fixture f;
  const auto message = [](const std::string& role, const std::string& content) {
    return R"({"messages": [{"role": )" + role + R"(, "content": )" + content + "}]}";
  };
  const std::vector<std::pair<std::string, std::string>> cases{
      {"no json", "no JSON object"},
      {"[1]", "no JSON object"},
      {R"({"prompt": "p", "completion": "c")", "no JSON object"},
      {"{\"prompt\": \"\xff\", \"completion\": \"c\"}", "not UTF-8"},
      {R"({"a": 1})", "neither completion nor messages"},
      {R"({"prompt": "p"})", "neither completion nor messages"},
      {R"({"completion": "c"})", "without a prompt"},
      {R"({"prompt": "p", "completion": ""})", "the completion is empty"},
      {R"({"prompt": "p", "completion": 3})", "completion is number"},
      {R"({"prompt": 3, "completion": "c"})", "prompt is number"},
      {R"({"prompt": ["x"], "completion": "c"})", "prompt is array"},
      {R"({"prompt": "p", "completion": [{"role": "assistant", "content": "c"}]})",
       "prompt is string"},
      {R"({"prompt": "p", "completion": "c", "messages": []})", "both"},
      {R"({"messages": []})", "messages is empty"},
      {R"({"messages": "hi"})", "messages is string"},
      {R"({"messages": ["hi"]})", "messages[0] is no message"},
      {R"({"messages": [{"role": "user"}]})", "messages[0] is no message"},
      {message(R"("user")", "null"), "messages[0] is no message"},
      {message(R"("asistant")", R"("c")"), "asistant"},
      {message(R"("user")", R"("c")"), "no assistant speaks"},
      {message(R"("assistant")", R"("")"), "an assistant turn is empty"},
      {R"({"prompt": [{"role": "assistant", "content": "a"}],
           "completion": [{"role": "user", "content": "u"}]})",
       "no assistant speaks"},
      {"{\"x\": " + std::string(100000, '[') + std::string(100000, ']') + "}", "nested"},
  };
  for (const auto& [line, said] : cases) {
    CAPTURE(line.substr(0, 200));
    CHECK_THAT(f.slip(line), Contains(said));
  }
}

TEST_CASE("a file gives its examples, and counts those that are too long", "[rl-sft_data]") {
  const Fixture f;
  const tests::ScratchFolder folder;
  const std::string text =
      "\xEF\xBB\xBF{\"prompt\": \"p\", \"completion\": \"x\"}\r\n\n"
      "{\"prompt\": \"p\", \"completion\": \"0123456789\"}\n"
      "{\"prompt\": \"long\", \"completion\": \"yz\"}";
  const std::string path = folder.write("any.name", text);
  const rl::SftFile all(path, f.format, 100), some(path, f.format, 8);
  CHECK(all.count() == 3);
  CHECK(all.left_out() == 0);
  CHECK(all.length(1) == 13);
  CHECK(all.num_tokens() == 4 + 13 + 8);
  CHECK(all.num_trained() == 2 + 11 + 3);
  CHECK(some.count() == 2);
  CHECK(some.left_out() == 1);
  CHECK(some.length(1) == 8);  // as long as a row
  CHECK(some.num_targets(1, 0) == 3);
  CHECK(some.num_targets(1, 5) == 2);
  CHECK(some.num_targets(1, 9) == 0);
  CHECK(some.xxh3() == all.xxh3());
  CHECK(some.xxh3().size() == 16);
}

TEST_CASE("a file that is none is refused in one line", "[rl-sft_data]") {
  const Fixture f;
  const tests::ScratchFolder folder;
  const auto slip = [&](const std::string& path) -> std::string {
    try {
      rl::SftFile file(path, f.format, 8);
    } catch (const InputError& error) {
      CHECK(std::string(error.what()).find('\n') == std::string::npos);
      return error.what();
    }
    return "no error";
  };
  CHECK_THAT(slip(folder / "none"), Contains("no such file"));
  CHECK_THAT(slip(folder.path), Contains("is a folder"));
  CHECK_THAT(slip(folder.write("empty", "")), Contains("empty:1: an empty file"));
  CHECK_THAT(slip(folder.write("blank", "\n\n")), Contains("blank lines only"));
  CHECK_THAT(slip(folder.write("third", "{\"prompt\": \"p\", \"completion\": \"c\"}\n\nx\n")),
             Contains("third:3: this line is no JSON"));
  CHECK_THAT(slip(folder.write("long", "{\"prompt\": \"0123456\", \"completion\": \"c\"}\n")),
             Contains("longer than data.seq_len=8"));
}
