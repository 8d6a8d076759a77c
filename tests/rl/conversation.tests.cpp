// Which text of a conversation is trained.
#include "rl/conversation.h"

#include "core/base/error.h"
#include "tests/catch.h"

using namespace cohort;
using Catch::Matchers::Contains;
using nlohmann::json;
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
