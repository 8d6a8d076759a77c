// Which text of a conversation is trained.
#include "rl/conversation.h"

#include "core/base/error.h"
#include "tests/catch.h"
#include "tests/scratch_folder.h"

using namespace cohort;
using Catch::Matchers::Contains;
using json = nlohmann::ordered_json;
using rl::TextSpan;

namespace {

json talk(std::initializer_list<std::pair<const char*, const char*>> turns) {
  json messages = json::array();
  for (const auto& [role, content] : turns)
    messages.push_back({{"role", role}, {"content", content}});
  return messages;
}

}  // namespace

TEST_CASE("every assistant turn is trained with its end, and nothing else", "[rl-conversation]") {
  const auto messages = talk({{"system", "be brief"},
                              {"user", "hello"},
                              {"assistant", " hi "},
                              {"user", "and?"},
                              {"assistant", "no more"},
                              {"user", "unanswered"}});
  const std::vector<TextSpan> wanted{
      {"<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\nhello<|im_end|>\n"
       "<|im_start|>assistant\n",
       false},
      {" hi <|im_end|>", true},
      {"\n<|im_start|>user\nand?<|im_end|>\n<|im_start|>assistant\n", false},
      {"no more<|im_end|>", true}};
  CHECK((rl::render_conversation(messages, 0) == wanted));
}

TEST_CASE("assistant turns of a prompt are not trained", "[rl-conversation]") {
  const auto messages = talk(
      {{"user", "a"}, {"assistant", "b"}, {"user", "c"}, {"assistant", "d"}, {"assistant", "e"}});
  const auto spans = rl::render_conversation(messages, 3);
  std::string all;
  for (const auto& span : spans) all += span.text;
  CHECK(all + "\n" == rl::chatml(messages, false));
  REQUIRE(spans.size() == 4);
  CHECK((spans[1] == TextSpan{"d<|im_end|>", true}));
  CHECK((spans[3] == TextSpan{"e<|im_end|>", true}));
}

TEST_CASE("a template that rewrites earlier turns is refused", "[rl-conversation]") {
  const auto messages =
      talk({{"user", "a"}, {"assistant", "b"}, {"user", "c"}, {"assistant", "deed"}});
  const auto forgets = [](const json& list, bool prompt) {
    std::string text = std::to_string(list.size());
    return prompt ? text + ">" : text + ">" + list.back().at("content").get<std::string>();
  };
  CHECK_THROWS_WITH(rl::render_conversation(messages, 0, forgets), Contains("changes what came"));
  const auto drops = [](const json& list, bool prompt) {
    auto shorter = list;
    if (!prompt) shorter.back()["content"] = "";
    return rl::chatml(shorter, prompt);
  };
  CHECK_THROWS_WITH(rl::render_conversation(messages, 2, drops), Contains("leaves out"));
  CHECK_THROWS_AS(rl::render_conversation(messages, 2, drops), InputError);
}

namespace {

constexpr const char* kGrows =
    "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content | trim }}<eot>\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}";
constexpr const char* kMarks =
    "{% for m in messages %}{% if m.role == 'assistant' %}A:{% generation %}"
    "{{ m.content if loop.last else m.content | trim }}<eot>{% endgeneration %}{{ '\\n' }}"
    "{% else %}U:{{ m.content }}{{ '\\n' }}{% endif %}{% endfor %}";

/// What is trained in brackets.
std::string shown(const std::vector<TextSpan>& spans) {
  std::string text;
  for (const auto& span : spans) text += span.trained ? "[" + span.text + "]" : span.text;
  return text;
}

const json kTalk = talk({{"user", "a"}, {"assistant", " b "}, {"user", "c"}, {"assistant", "d"}});

}  // namespace

TEST_CASE("a folder's own template renders its conversations", "[rl-conversation]") {
  const tests::ScratchFolder folder;
  const auto rendered = [&](size_t first) {
    return shown(rl::folder_conversation(folder.path)(kTalk, first, json::object()));
  };
  CHECK(rendered(0) == shown(rl::render_conversation(kTalk, 0)));  // there is none: ChatML
  folder.write("tokenizer_config.json", R"({"bos_token": "<s>"})");
  CHECK(rendered(0) == shown(rl::render_conversation(kTalk, 0)));
  folder.write("chat_template.jinja", kGrows);
  CHECK(rendered(0) == "<s>user: a<eot>\nassistant: [b<eot>]\nuser: c<eot>\nassistant: [d<eot>]");
  CHECK(rendered(2) == "<s>user: a<eot>\nassistant: b<eot>\nuser: c<eot>\nassistant: [d<eot>]");
}

TEST_CASE("what {% generation %} writes is trained, even where a template rewrites history",
          "[rl-conversation]") {
  const tests::ScratchFolder folder;
  folder.write("chat_template.jinja", kMarks);
  const auto render = rl::folder_conversation(folder.path);
  CHECK(shown(render(kTalk, 0, json::object())) == "U:a\nA:[b<eot>]\nU:c\nA:[d<eot>]");
  CHECK(shown(render(kTalk, 2, json::object())) == "U:a\nA:b<eot>\nU:c\nA:[d<eot>]");
}

TEST_CASE("a folder's template that cannot be used is told in one line", "[rl-conversation]") {
  const tests::ScratchFolder folder;
  const auto slip = [&](const std::string& text, const json& messages) -> std::string {
    folder.write("chat_template.jinja", text);
    try {
      rl::folder_conversation(folder.path)(messages, 0, json::object());
    } catch (const InputError& error) {
      return error.what();
    }
    return "no error";
  };
  CHECK_THAT(
      slip("{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}", kTalk),
      Contains("changes what came before message 1"));
  CHECK_THAT(slip("{% include 'x' %}", kTalk), Contains("include"));
  CHECK_THAT(slip("{% generation %}{% endgeneration %}{{ messages | length }}", kTalk),
             Contains("holds nothing of what the assistant says"));
  CHECK_THAT(slip(kGrows, talk({{"assistant", "a"}})), Contains("speaks first"));
}

TEST_CASE("a template may move white space, not words", "[rl-conversation]") {
  const auto spaced = [](const json& list, bool prompt) {
    std::string text;
    for (const auto& m : list)
      text += m.at("role") == "user" ? "U\n" : "A\n<think>\nx\n</think>\n\ny";
    return prompt ? text + "A\n" : text;
  };
  const auto spans =
      rl::render_conversation(talk({{"user", "q"}, {"assistant", "<think>x</think>y"}}), 0, spaced);
  CHECK(shown(spans) == "U\nA\n[<think>\nx\n</think>\n\ny]");
}
